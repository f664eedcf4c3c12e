"""Delivery status notifications: the fields of RFC 3464, read leniently where servers deviate from it."""

import re
from collections.abc import Sequence
from dataclasses import dataclass

from campaigns.delivery.bounces.parsing.mime_reader import ParsedMail

STATUS = frozenset({"message/delivery-status", "message/global-delivery-status"})
_MOST_GROUPS = 50
_FIELD = re.compile(r"([A-Za-z][A-Za-z0-9-]{1,60}):[ \t]*(.*)")
_LOOSE = re.compile(r"^(final|original)-recipient[ \t]*:", re.I | re.M)


@dataclass(frozen=True, slots=True)
class DsnRecipient:
    """Fields of one recipient in a delivery report; ``action`` and the addresses in lower case."""

    action: str
    status: str
    diagnostic: str
    final: str
    original: str


def groups(mail: ParsedMail) -> Sequence[DsnRecipient]:
    """Return the recipients of a delivery report; empty when the mail is not one."""
    for part in mail.parts:
        if part.kind in STATUS:
            return _groups(part.text)
    for part in mail.parts:  # A gateway replaced the part's content type.
        if part.kind.startswith("text/") and _LOOSE.search(part.text):
            return _groups(part.text)
    return ()


def _groups(text: str) -> list[DsnRecipient]:
    found = []
    for block in _blocks(text):
        said = _fields(block)
        if not said.keys() & {"final-recipient", "original-recipient", "action", "status", "diagnostic-code"}:
            continue
        group = DsnRecipient(
            said.get("action", "").split("(")[0].strip().lower()[:20],
            said.get("status", ""),
            _typed(said.get("diagnostic-code", "")) or _typed(said.get("x-supplementary-info", "")),
            _address(said.get("final-recipient", "")),
            _address(said.get("original-recipient", "")),
        )
        found.append(group)
    return found[:_MOST_GROUPS]


def _blocks(text: str) -> list[str]:
    return re.split(r"\r?\n[ \t]*\r?\n", text.strip("\r\n"), maxsplit=_MOST_GROUPS)


def _fields(block: str) -> dict[str, str]:
    """Parse header-like fields: names in lower case, the first of a repeated field wins."""
    said: dict[str, str] = {}
    name = ""
    for line in block.splitlines()[:200]:
        if line[:1] in (" ", "\t") and name:
            said[name] = f"{said[name]} {line.strip()}"[:4000]
            continue
        field = _FIELD.match(line)
        name = field[1].lower() if field and field[1].lower() not in said else ""
        if field and name:
            said[name] = field[2].strip()[:4000]
    return said


def _typed(value: str) -> str:
    """Return ``smtp; 550 …`` without its type prefix."""
    kind, mark, rest = value.partition(";")
    return rest.strip() if mark and re.fullmatch(r"[\w-]{1,20}", kind.strip()) else value.strip()


def _address(value: str) -> str:
    return _typed(value).strip("<> \t").lower()[:254]
