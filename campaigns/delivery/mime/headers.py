"""Encoding of header values (RFC 5322, RFC 2047).

Not the standard library's encoder, because its own parser cannot read all of its output back. Text beyond ASCII
becomes RFC 2047 encoded words of at most 75 columns, split between characters; the first one leaves space for the
header's name. Control characters are replaced, so no value can end its header's line.
"""

import binascii
import re
from datetime import UTC, datetime
from email.utils import format_datetime

import idna

_CONTROLS = re.compile(r"[\x00-\x1f\x7f\u0085\u2028\u2029]+")
_match_atoms = re.compile(r"[A-Za-z0-9!#$%&'*+/=?^_`{|}~-]+(?: [A-Za-z0-9!#$%&'*+/=?^_`{|}~-]+)*\Z").match
_FORBIDDEN_IN_ADDRESS = re.compile(r'[\x00-\x20\x7f<>()\[\],;:\\"]')
_MAX_LINE = 76
_WORD_BYTES = 45  # 60 characters of base64, 72 with =?utf-8?B?…?=


def encode_text(text: str, column: int) -> str:
    """``text`` as the value of an unstructured header that begins at ``column``; encoded and folded where needed."""
    text = _CONTROLS.sub(" ", text).strip()
    if text.isascii() and "=?" not in text and column + len(text) <= _MAX_LINE:
        return text
    if text.isascii() and "=?" not in text and all(len(part) < _MAX_LINE - column for part in text.split(" ")):
        return _fold(text, column)
    return "\r\n ".join(_encoded_words(text, column))


def _fold(text: str, column: int) -> str:
    lines: list[str] = []
    line = ""
    for part in text.split(" "):
        limit = _MAX_LINE - (column if not lines else 1)
        if line and len(line) + 1 + len(part) > limit:
            lines.append(line)
            line = part
        else:
            line = f"{line} {part}" if line else part
    return "\r\n ".join([*lines, line])


def _encoded_words(text: str, column: int) -> list[str]:
    pieces, piece, limit = [], b"", _first_word_bytes(column)
    for character in text:
        raw = character.encode("utf-8", "replace")
        if len(piece) + len(raw) > limit:
            pieces.append(piece)
            piece, limit = b"", _WORD_BYTES
        piece += raw
    return [f"=?utf-8?B?{binascii.b2a_base64(part, newline=False).decode()}?=" for part in [*pieces, piece]]


def _first_word_bytes(column: int) -> int:
    return max(9, min(_WORD_BYTES, (_MAX_LINE - column - 12) // 4 * 3))


def encode_mailbox(name: str, address: str, column: int) -> str:
    """``name <address>`` for a header whose value begins at ``column``. The address is always in angle brackets, its
    domain in A-labels. Raises ValueError for an invalid address."""
    return encode_ascii_mailbox(name, with_ascii_domain(address), column)


def encode_ascii_mailbox(name: str, address: str, column: int) -> str:
    """:func:`encode_mailbox` for an address whose domain is ASCII already."""
    if column + len(name) + len(address) + 3 <= _MAX_LINE and _match_atoms(name) and "=?" not in name:
        return f"{name} <{address}>"
    name = _CONTROLS.sub(" ", name).strip()
    if not name:
        return f"<{address}>"
    if name.isascii() and "=?" not in name and len(name) < _MAX_LINE - column:
        phrase = name if _match_atoms(name) else '"' + name.replace("\\", "\\\\").replace('"', '\\"') + '"'
    else:
        phrase = "\r\n ".join(_encoded_words(name, column))
    last_column = len(phrase) - phrase.rfind("\n") if "\n" in phrase else column + len(phrase)
    return f"{phrase} <{address}>" if last_column + len(address) + 3 <= _MAX_LINE else f"{phrase}\r\n <{address}>"


def with_ascii_domain(address: str) -> str:
    """The address with its domain as A-labels. Raises ValueError for an address that SMTP cannot carry."""
    local, at, domain = address.rpartition("@")
    if not at or not local or not domain or _FORBIDDEN_IN_ADDRESS.search(address) or len(address) > 254:
        raise ValueError(f"not an address: {address!r}")
    if not domain.isascii():
        try:
            domain = idna.encode(domain, uts46=True).decode()
        except idna.IDNAError as error:
            raise ValueError(f"not a domain: {domain!r}") from error
    return f"{local}@{domain}"


def format_date(at: datetime) -> str:
    """An RFC 5322 date in UTC, with ``+0000``: ``-0000`` would mean that the local zone is unknown (section 3.3)."""
    return format_datetime(at.astimezone(UTC).replace(microsecond=0))
