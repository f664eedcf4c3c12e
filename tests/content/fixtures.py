"""What the tests of this room share."""

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


def mail(words: str = "Hello", head: str = "") -> str:
    """A whole MJML source around some words, which stand in line 4."""
    return (
        f"<mjml><mj-head>{head}</mj-head><mj-body>\n<mj-section>\n<mj-column>\n"
        f"<mj-text>{words}</mj-text>\n</mj-column>\n</mj-section>\n</mj-body></mjml>"
    )


def built(mjml: str, *, subject: str = "Hello", preheader: str = "", language: str = "en") -> CompiledMessage:
    """Built in this process: for sources that do no harm."""
    return compiler.build(MessageDraft(subject, preheader, mjml, language), merge_fields.HOUSE_FIELDS, {"ours.local"})


def findings(mjml: str, **others: str) -> list[str]:
    """What is found, each as ``level line: sentence``."""
    return [f"{each.level} {each.line}: {each}" for each in built(mjml, **others).findings]
