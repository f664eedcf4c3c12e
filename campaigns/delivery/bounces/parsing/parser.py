"""Parser of inbound bounce mails: raw mail → feedback type, diagnostic and the send concerned."""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from hashlib import blake2b

from campaigns.delivery.bounces.models import FeedbackType
from campaigns.delivery.bounces.parsing import arf, dsn, mime_reader, send_tokens
from campaigns.delivery.bounces.parsing import prose as parsing_prose
from campaigns.delivery.bounces.parsing.classification import classify
from campaigns.delivery.bounces.parsing.dsn import DsnRecipient
from campaigns.delivery.bounces.parsing.mime_reader import ParsedMail
from campaigns.delivery.mime import verp
from campaigns.delivery.smtp.replies import printable_line
from campaigns.tokens import Purpose

_RETURNED_TYPES = frozenset({"message/rfc822", "text/rfc822-headers", "message/global", "message/global-headers"})
_RECIPIENT_FIELDS = ("Delivered-To", "X-Original-To", "Envelope-To", "X-Envelope-To", "X-Forwarded-To", "To", "Cc")


@dataclass(frozen=True, slots=True)
class ParsedBounce:
    """One report: ``feedback_type`` about ``send_id``; ``send_id`` is None without a valid token."""

    feedback_type: FeedbackType
    send_id: int | None = None
    key: str = ""
    """Identical for repeated deliveries of the same report."""
    status: str = ""
    diagnostic: str = ""
    recipient: str = ""
    """The address the report names; not verified."""
    bounced_address: str = ""
    """The address that bounced. If it is not the send's address, the mail was forwarded to it."""


def parse(raw: bytes) -> ParsedBounce:
    """Parse an inbound mail; never raises."""
    mail = mime_reader.parse_mail(raw)
    send_id, forged = send_tokens.verified_send(_token_candidates(mail))
    parsed = _parse_content(mail)
    if send_id is None and parsed.feedback_type in (
        FeedbackType.HARD,
        FeedbackType.SOFT,
        FeedbackType.POLICY,
        FeedbackType.COMPLAINT,
    ):
        feedback_type = FeedbackType.FORGED if forged else FeedbackType.FOREIGN
    else:
        feedback_type = parsed.feedback_type
    return ParsedBounce(
        feedback_type,
        send_id,
        _report_key(mail, raw),
        parsed.status,
        printable_line(parsed.diagnostic[:2000]),
        parsed.recipient[:254],
        parsed.bounced_address,
    )


def _parse_content(mail: ParsedMail) -> ParsedBounce:
    report_type = arf.report_type(mail)
    if report_type:
        feedback_type = FeedbackType.COMPLAINT if arf.is_complaint(report_type) else FeedbackType.DELIVERED
        return ParsedBounce(feedback_type, diagnostic=report_type)
    recipients = dsn.parse_recipients(mail)
    if recipients:
        return _from_dsn(recipients, parsing_prose.report_text(mail))
    if parsing_prose.is_bounce(mail):
        return _from_prose(mail)
    if parsing_prose.is_auto_reply(mail):
        return ParsedBounce(FeedbackType.AUTO_REPLY, diagnostic=mime_reader.field(mail.head, "Subject"))
    return ParsedBounce(FeedbackType.UNREADABLE, diagnostic=mime_reader.field(mail.head, "Subject"))


_NON_FAILURES = {
    "delivered": FeedbackType.DELIVERED,
    "relayed": FeedbackType.DELIVERED,
    "expanded": FeedbackType.DELIVERED,
    "delayed": FeedbackType.DELAYED,
}


def _from_dsn(recipients: Sequence[DsnRecipient], text: str) -> ParsedBounce:
    """Return the worst result among the recipients; our mails have one recipient each."""
    failed = [group for group in recipients if group.action not in _NON_FAILURES]
    if not failed:
        return ParsedBounce(
            _NON_FAILURES[recipients[0].action], diagnostic=recipients[0].diagnostic, recipient=recipients[0].final
        )
    recipient = next((each for each in failed if each.action == "failed"), failed[0])
    if not (recipient.action or recipient.status or recipient.diagnostic):
        return ParsedBounce(FeedbackType.UNREADABLE, recipient=recipient.final or recipient.original)
    diagnostic = recipient.diagnostic or parsing_prose.diagnostic(text)
    bounce_class = classify(recipient.status, diagnostic)
    return ParsedBounce(
        bounce_class.feedback_type,
        status=bounce_class.status,
        diagnostic=diagnostic,
        recipient=recipient.final or recipient.original,
        bounced_address=recipient.original or recipient.final,
    )


def _from_prose(mail: ParsedMail) -> ParsedBounce:
    text = parsing_prose.report_text(mail)
    address = parsing_prose.failed_address(mail, text)
    if parsing_prose.is_delay(mail):
        return ParsedBounce(FeedbackType.DELAYED, recipient=address)
    diagnostic = parsing_prose.diagnostic(text)
    bounce_class = classify("", diagnostic if starts_with_code(diagnostic) else text[:4000])
    return ParsedBounce(
        bounce_class.feedback_type, status=bounce_class.status, diagnostic=diagnostic, recipient=address
    )


def starts_with_code(line: str) -> bool:
    """Return whether the line begins with a reply code or an enhanced status code."""
    return bool(re.match(r"#?[45]\d?\d?[ .\-]", line))


def _token_candidates(mail: ParsedMail) -> Iterator[send_tokens.Token]:
    """Yield token candidates of the envelope, then of the returned mail, then of the text and the mail quoted in it."""
    for name in _RECIPIENT_FIELDS:
        for value in mime_reader.fields(mail.head, name):
            yield from ((token, Purpose.BOUNCE) for token in verp.find_tokens(value))
    for part in mail.parts:
        if part.content_type in _RETURNED_TYPES:
            head = mime_reader.parse_header(part.body)
            for name in ("Return-Path", "Message-ID", "List-Unsubscribe"):
                yield from send_tokens.token_candidates(mime_reader.field(head, name))
        elif part.content_type in dsn.CONTENT_TYPES or part.content_type == arf.CONTENT_TYPE:
            yield from send_tokens.token_candidates(part.text)
    for part in mail.parts[:3]:
        if part.content_type.startswith("text/"):
            yield from send_tokens.token_candidates(part.text)


def _report_key(mail: ParsedMail, raw: bytes) -> str:
    """Return a digest of the Message-ID, since servers add a Received field at each delivery; else of the mail."""
    message_id = mime_reader.field(mail.head, "Message-ID").encode("utf-8", "replace")
    return blake2b(message_id or raw, digest_size=16).hexdigest()
