"""Compiling messages: problems, previews, and frozen versions for sending."""

import dataclasses
import hashlib
import json
import re
from collections.abc import Collection
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from sqlalchemy import select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from campaigns import clock, config
from campaigns.accounts import audit
from campaigns.accounts.actor import Actor, Permission
from campaigns.accounts.models import Organisation
from campaigns.accounts.organisation import organisation as the_organisation
from campaigns.content.merge_fields import known_fields, sample_fields
from campaigns.content.mjml import subprocess_sandbox
from campaigns.content.mjml.compiler import COMPILER_VERSION, CompiledMessage, MessageDraft, TrackedLink
from campaigns.content.mjml.diagnostics import Diagnostic, Severity, errors
from campaigns.content.models import Link, Message, MessageVersion
from campaigns.content.rendering import renderer
from campaigns.content.rendering.links import own_hosts, personalise_url
from campaigns.content.rendering.renderer import MergeUrls, RenderedMessage
from campaigns.errors import ValidationFailed
from campaigns.i18n import N_

_FIELD = re.compile(r"contact\.([a-z][a-z0-9_]{0,60})")
TOKEN_LENGTH = 28
_UNSUBSCRIBE_EXAMPLE = "https://unsubscribe.example/"


@dataclass(frozen=True, slots=True)
class CompileResult:
    """A compiled draft. It has the attributes of a message version, so the renderer accepts it."""

    built: CompiledMessage
    size: int
    content_hash: str

    @property
    def subject(self) -> str:
        return self.built.subject

    @property
    def preheader(self) -> str:
        return self.built.preheader

    @property
    def html(self) -> str:
        return self.built.html

    @property
    def text(self) -> str:
        return self.built.text

    @property
    def findings(self) -> list[Diagnostic]:
        return self.built.findings


def compile_in_sandbox(draft: MessageDraft, organisation: Organisation, fields: Collection[str]) -> CompileResult:
    """Compile a draft in the sandbox process. ``findings`` cover the content, not the sender."""
    names = {**sample_fields(draft.language, organisation), **_example_urls()}
    request = {
        "question": "build",
        "draft": dataclasses.asdict(draft),
        "known": sorted(fields),
        "hosts": sorted(own_hosts(organisation.own_hosts or ())),
        "names": names,
    }
    return _compile_cached(json.dumps(request, sort_keys=True))


def _example_urls() -> dict[str, str]:
    """Non-working URLs of realistic length, for measuring the size of the merged mail."""
    settings, token = config.settings(), "x" * TOKEN_LENGTH
    return {
        "link": f"{settings.tracking_url}/c/{token}/99",
        "pixel": f"{settings.tracking_url}/o/{token}",
        "unsubscribe_url": f"{settings.base_url}/u/{token}",
    }


# Cached because the editor requests findings, preview and links of the same draft in succession.
@lru_cache(32)
def _compile_cached(request: str) -> CompileResult:
    try:
        response: dict[str, Any] = subprocess_sandbox.run_in_sandbox(json.loads(request))
    except ValidationFailed as error:
        findings = [Diagnostic(problem.message, problem.field) for problem in error.problems]
        return CompileResult(CompiledMessage(findings=findings), 0, "")
    built = response["built"]
    findings = [Diagnostic(**{**each, "level": Severity(each["level"])}) for each in built["findings"]]
    compiled = CompiledMessage(
        **{**built, "findings": findings, "links": [TrackedLink(**each) for each in built["links"]]}
    )
    return CompileResult(compiled, response["size"], hashlib.sha256(request.encode()).hexdigest())


def draft_of(message: Message) -> MessageDraft:
    return MessageDraft(message.subject, message.preheader, message.mjml, message.language)


def used_fields(draft: MessageDraft) -> set[str]:
    """Return the contact fields that a draft appears to use (at most 50), for :func:`merge_fields.known_fields`."""
    keys = _FIELD.findall(f"{draft.subject} {draft.preheader} {draft.mjml}")
    return {f"contact.{key}" for key in keys[:50]}


def compile_message(session: Session, message: Message) -> CompileResult:
    """Compile a message's draft with the organisation's merge fields and own hosts."""
    draft = draft_of(message)
    return compile_in_sandbox(draft, the_organisation(session), known_fields(session, used_fields(draft)))


def precompile(session: Session, message_id: int | None) -> None:
    """Compile before a write transaction begins, which then finds the result cached.

    Compiling inside the transaction would block SQLite's only writer meanwhile.
    """
    message = session.get(Message, message_id) if message_id is not None else None
    if message is not None:
        compile_message(session, message)


def find_problems(message: Message, organisation: Organisation, fields: Collection[str]) -> list[Diagnostic]:
    """Return all findings for a message and its sender, errors first, then by line."""
    found = [
        *compile_in_sandbox(draft_of(message), organisation, fields).findings,
        *_sender_findings(message, organisation),
    ]
    return sorted(found, key=lambda finding: (finding.level is not Severity.ERROR, finding.line or 0))


def _sender_findings(message: Message, organisation: Organisation) -> list[Diagnostic]:
    found = []
    if not (message.from_email or organisation.sender_email):
        found.append(Diagnostic(N_("The sender's address is missing."), "from_email"))
    if not (organisation.postal_address or "").strip():
        message_text = N_("The organisation has no postal address; commercial mail has to carry one.")
        found.append(Diagnostic(message_text, "organisation", level=Severity.WARNING))
    return found


def content_hash(message: Message, organisation: Organisation) -> str:
    """Return a hash of everything that determines the mail, including the sender."""
    parts = [
        COMPILER_VERSION,
        message.subject,
        message.preheader,
        message.mjml,
        message.language,
        *_sender(message, organisation),
    ]
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()


def _sender(message: Message, organisation: Organisation) -> tuple[str, str, str]:
    own = bool(message.from_email)
    return (
        message.from_name or organisation.sender_name,
        message.from_email if own else organisation.sender_email,
        message.reply_to,
    )


def freeze(session: Session, actor: Actor, message: Message) -> MessageVersion:
    """Return an immutable compiled version of the message; an existing version when nothing changed.

    Raises ValidationFailed with every error that prevents sending.
    """
    actor.require(Permission.PLAN)
    organisation = the_organisation(session)
    fingerprint = content_hash(message, organisation)
    if existing := _find_version(session, message, fingerprint):
        return existing
    fields = known_fields(session, used_fields(draft_of(message)))
    if blocking := errors(find_problems(message, organisation, fields)):
        raise ValidationFailed(blocking)
    built = compile_in_sandbox(draft_of(message), organisation, fields).built
    version = _build_version(message, organisation, fingerprint, built)
    try:
        with session.begin_nested():
            session.add(version)
    except IntegrityError:  # another session froze the same content at the same time
        if existing := _find_version(session, message, fingerprint):
            return existing
        raise
    audit.record(session, actor, "freeze", "message", message.id, version=version.id)
    return version


def _find_version(session: Session, message: Message, fingerprint: str) -> MessageVersion | None:
    return session.scalar(
        select(MessageVersion).where(
            MessageVersion.message_id == message.id, MessageVersion.content_hash == fingerprint
        )
    )


def _build_version(
    message: Message, organisation: Organisation, fingerprint: str, built: CompiledMessage
) -> MessageVersion:
    name, email, reply_to = _sender(message, organisation)
    return MessageVersion(
        message_id=message.id,
        content_hash=fingerprint,
        subject=built.subject,
        preheader=built.preheader,
        mjml=message.mjml,
        html=built.html,
        text=built.text,
        language=message.language,
        from_name=name,
        from_email=email,
        reply_to=reply_to,
        created_at=clock.now(),
        links=[Link(number=each.number, url=each.url, label=each.label) for each in built.links],
    )


def preview(result: CompileResult, fields: dict[str, dict[str, str]]) -> RenderedMessage:
    """Render a compiled draft for a recipient with ``fields``; links go directly to their targets, without tracking."""
    urls = {link.number: personalise_url(link.url, fields) for link in result.built.links}
    return renderer.render(result, fields, MergeUrls(urls, None, _UNSUBSCRIBE_EXAMPLE))
