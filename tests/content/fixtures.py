"""Helpers for content tests: an organisation, MJML sources, compiled drafts."""

from campaigns.accounts.models import Organisation
from campaigns.content import merge_fields
from campaigns.content.mjml import compiler
from campaigns.content.mjml.compiler import CompiledMessage, MessageDraft

ORGANISATION = Organisation(
    id=1,
    name="Acme",
    sender_name="Nino of Acme",
    sender_email="hello@acme.example",
    postal_address="1 Main Street, Tbilisi",
    own_hosts=[],
)


def mjml_source(text: str = "Hello", head: str = "") -> str:
    """Return a complete MJML source; ``text`` is in line 4."""
    return (
        f"<mjml><mj-head>{head}</mj-head><mj-body>\n<mj-section>\n<mj-column>\n"
        f"<mj-text>{text}</mj-text>\n</mj-column>\n</mj-section>\n</mj-body></mjml>"
    )


def compile_mjml(mjml: str, *, subject: str = "Hello", preheader: str = "", language: str = "en") -> CompiledMessage:
    """Compile in this process, without the sandbox: only for harmless sources."""
    return compiler.compile_draft(
        MessageDraft(subject, preheader, mjml, language), merge_fields.BUILT_IN_FIELDS, {"ours.local"}
    )


def findings(mjml: str, **others: str) -> list[str]:
    """Return the findings of a source, each as ``level line: message``."""
    return [f"{each.level} {each.line}: {each}" for each in compile_mjml(mjml, **others).findings]
