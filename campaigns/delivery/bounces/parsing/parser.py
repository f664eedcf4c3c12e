"""Parser of inbound bounce mails: raw mail → feedback type, diagnostic and the send concerned."""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from hashlib import blake2b

from campaigns.delivery.bounces.models import FeedbackType
from campaigns.delivery.bounces.parsing import arf, dsn, mime_reader, send_tokens
from campaigns.delivery.bounces.parsing import prose as parsing_prose
from campaigns.delivery.bounces.parsing.classification import judge
from campaigns.delivery.bounces.parsing.dsn import DsnRecipient
from campaigns.delivery.bounces.parsing.mime_reader import ParsedMail
from campaigns.delivery.mime import verp
from campaigns.delivery.smtp.replies import printable
from campaigns.tokens import Purpose

_RETURNED = frozenset({"message/rfc822", "text/rfc822-headers", "message/global", "message/global-headers"})
_ENVELOPE = ("Delivered-To", "X-Original-To", "Envelope-To", "X-Envelope-To", "X-Forwarded-To", "To", "Cc")


@dataclass(frozen=True, slots=True)
class ParsedBounce:
    """One report: ``feedback_type`` about ``send_id``; ``send_id`` is None without a valid token."""

    finding: FeedbackType
    send_id: int | None = None
    key: str = ""
    """Identical for repeated deliveries of the same report."""
    status: str = ""
    said: str = ""
    recipient: str = ""
    """The address the report names; not verified."""
    forwarded_if_not: str = ""
    """The address that bounced. If it is not the send's address, the mail was forwarded to it."""


def read(raw: bytes) -> ParsedBounce:
    """Parse an inbound mail; never raises."""
    mail = mime_reader.opened(raw)
    send_id, forged = send_tokens.send_of(_tokens(mail))
    told = _told(mail)
    if send_id is None and told.finding in (
        FeedbackType.HARD,
        FeedbackType.SOFT,
        FeedbackType.POLICY,
        FeedbackType.COMPLAINT,
    ):
        finding = FeedbackType.FORGED if forged else FeedbackType.FOREIGN
    else:
        finding = told.finding
    return ParsedBounce(
        finding,
        send_id,
        _key(mail, raw),
        told.status,
        printable(told.said[:2000]),
        told.recipient[:254],
        told.forwarded_if_not,
    )


def _told(mail: ParsedMail) -> ParsedBounce:
    complaint = arf.kind(mail)
    if complaint:
        finding = FeedbackType.COMPLAINT if arf.is_complaint(complaint) else FeedbackType.DELIVERED
        return ParsedBounce(finding, said=complaint)
    groups = dsn.groups(mail)
    if groups:
        return _reported(groups, parsing_prose.prose(mail))
    if parsing_prose.is_notice(mail):
        return _written(mail)
    if parsing_prose.is_auto_reply(mail):
        return ParsedBounce(FeedbackType.AUTO_REPLY, said=mime_reader.field(mail.head, "Subject"))
    return ParsedBounce(FeedbackType.UNREADABLE, said=mime_reader.field(mail.head, "Subject"))


_PASSING = {
    "delivered": FeedbackType.DELIVERED,
    "relayed": FeedbackType.DELIVERED,
    "expanded": FeedbackType.DELIVERED,
    "delayed": FeedbackType.DELAYED,
}


def _reported(groups: Sequence[DsnRecipient], prose: str) -> ParsedBounce:
    """Return the worst result among the recipients; our mails have one recipient each."""
    failed = [group for group in groups if group.action not in _PASSING]
    if not failed:
        return ParsedBounce(_PASSING[groups[0].action], said=groups[0].diagnostic, recipient=groups[0].final)
    group = next((each for each in failed if each.action == "failed"), failed[0])
    if not (group.action or group.status or group.diagnostic):
        return ParsedBounce(FeedbackType.UNREADABLE, recipient=group.final or group.original)
    diagnostic = group.diagnostic or parsing_prose.diagnostic(prose)
    verdict = judge(group.status, diagnostic)
    return ParsedBounce(
        verdict.finding,
        status=verdict.status,
        said=diagnostic,
        recipient=group.final or group.original,
        forwarded_if_not=group.original or group.final,
    )


def _written(mail: ParsedMail) -> ParsedBounce:
    told = parsing_prose.prose(mail)
    address = parsing_prose.address(mail, told)
    if parsing_prose.is_delay(mail):
        return ParsedBounce(FeedbackType.DELAYED, recipient=address)
    said = parsing_prose.diagnostic(told)
    verdict = judge("", said if verdict_in(said) else told[:4000])
    return ParsedBounce(verdict.finding, status=verdict.status, said=said, recipient=address)


def verdict_in(said: str) -> bool:
    """Return whether the line begins with a reply code or an enhanced status code."""
    return bool(re.match(r"#?[45]\d?\d?[ .\-]", said))


def _tokens(mail: ParsedMail) -> Iterator[send_tokens.Token]:
    """Yield token candidates of the envelope, then of the returned mail, then of the text and the mail quoted in it."""
    for name in _ENVELOPE:
        for value in mime_reader.fields(mail.head, name):
            yield from ((token, Purpose.BOUNCE) for token in verp.tokens_in(value))
    for part in mail.parts:
        if part.kind in _RETURNED:
            head = mime_reader.head_of(part.body)
            for name in ("Return-Path", "Message-ID", "List-Unsubscribe"):
                yield from send_tokens.tokens_in(mime_reader.field(head, name))
        elif part.kind in dsn.STATUS or part.kind == arf.FEEDBACK:
            yield from send_tokens.tokens_in(part.text)
    for part in mail.parts[:3]:
        if part.kind.startswith("text/"):
            yield from send_tokens.tokens_in(part.text)


def _key(mail: ParsedMail, raw: bytes) -> str:
    """Return a digest of the Message-ID, since servers add a Received field at each delivery; else of the mail."""
    own = mime_reader.field(mail.head, "Message-ID").encode("utf-8", "replace")
    return blake2b(own or raw, digest_size=16).hexdigest()
