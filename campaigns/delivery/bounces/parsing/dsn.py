"""Delivery status notifications: the fields of RFC 3464, read leniently where servers deviate from it."""

import re
from collections.abc import Sequence
from dataclasses import dataclass

from campaigns.delivery.bounces.parsing.mime_reader import ParsedMail

CONTENT_TYPES = frozenset({"message/delivery-status", "message/global-delivery-status"})
_MAX_RECIPIENTS = 50
_FIELD = re.compile(r"([A-Za-z][A-Za-z0-9-]{1,60}):[ \t]*(.*)")
_RECIPIENT_FIELD = re.compile(r"^(final|original)-recipient[ \t]*:", re.I | re.M)


@dataclass(frozen=True, slots=True)
class DsnRecipient:
    """Fields of one recipient in a delivery report; ``action`` and the addresses in lower case."""

    action: str
    status: str
    diagnostic: str
    final: str
    original: str


def parse_recipients(mail: ParsedMail) -> Sequence[DsnRecipient]:
    """Return the recipients of a delivery report; empty when the mail is not one."""
    for part in mail.parts:
        if part.content_type in CONTENT_TYPES:
            return _parse_status_part(part.text)
    for part in mail.parts:  # A gateway replaced the part's content type.
        if part.content_type.startswith("text/") and _RECIPIENT_FIELD.search(part.text):
            return _parse_status_part(part.text)
    return ()


def _parse_status_part(text: str) -> list[DsnRecipient]:
    recipients = []
    for block in _blocks(text):
        fields = _fields(block)
        if not fields.keys() & {"final-recipient", "original-recipient", "action", "status", "diagnostic-code"}:
            continue
        recipient = DsnRecipient(
            fields.get("action", "").split("(")[0].strip().lower()[:20],
            fields.get("status", ""),
            _strip_type(fields.get("diagnostic-code", "")) or _strip_type(fields.get("x-supplementary-info", "")),
            _address(fields.get("final-recipient", "")),
            _address(fields.get("original-recipient", "")),
        )
        recipients.append(recipient)
    return recipients[:_MAX_RECIPIENTS]


def _blocks(text: str) -> list[str]:
    return re.split(r"\r?\n[ \t]*\r?\n", text.strip("\r\n"), maxsplit=_MAX_RECIPIENTS)


def _fields(block: str) -> dict[str, str]:
    """Parse header-like fields: names in lower case, the first of a repeated field wins."""
    fields: dict[str, str] = {}
    name = ""
    for line in block.splitlines()[:200]:
        if line[:1] in (" ", "\t") and name:
            fields[name] = f"{fields[name]} {line.strip()}"[:4000]
            continue
        match = _FIELD.match(line)
        name = match[1].lower() if match and match[1].lower() not in fields else ""
        if match and name:
            fields[name] = match[2].strip()[:4000]
    return fields


def _strip_type(value: str) -> str:
    """Return ``smtp; 550 …`` without its type prefix."""
    kind, mark, rest = value.partition(";")
    return rest.strip() if mark and re.fullmatch(r"[\w-]{1,20}", kind.strip()) else value.strip()


def _address(value: str) -> str:
    return _strip_type(value).strip("<> \t").lower()[:254]
