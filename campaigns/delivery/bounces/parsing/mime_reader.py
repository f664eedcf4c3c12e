"""MIME parser with limits on size, depth and number of parts; it never raises.

The standard library's parser builds the whole tree of a mail recursively. This one splits each level at its own
boundary, at most six levels deep and 60 parts wide.
"""

import binascii
import quopri
import re
from collections.abc import Iterator
from dataclasses import dataclass
from email.errors import MessageError
from email.header import decode_header, make_header
from email.message import Message
from email.parser import BytesHeaderParser

LARGEST = 2_000_000
"""Bytes that are parsed. A report begins with the relevant parts; the returned mail comes last."""
_DEEPEST = 6
_MOST_PARTS = 60
_HEAD = 64_000
_GAP = re.compile(rb"\r?\n[ \t]*\r?\n")
_HEADERS = BytesHeaderParser()
_TEXT = 100_000


@dataclass(frozen=True, slots=True)
class Part:
    """A leaf of the MIME tree: its header, content type and decoded body."""

    head: Message
    kind: str
    body: bytes
    depth: int

    @property
    def text(self) -> str:
        """The body as text, at most 100,000 characters."""
        try:
            charset = str(self.head.get_content_charset() or "utf-8")
            text = self.body[:_TEXT].decode(charset, "replace")
        except (LookupError, ValueError, UnicodeError, TypeError, AttributeError):
            text = self.body[:_TEXT].decode("utf-8", "replace")
        return text.replace("\x00", "")


@dataclass(frozen=True, slots=True)
class ParsedMail:
    """A mail's header and its leaf parts in order."""

    head: Message
    parts: tuple[Part, ...]


def opened(raw: bytes) -> ParsedMail:
    """Parse a mail; never raises."""
    head, body = _cut(raw[:LARGEST])
    return ParsedMail(head, tuple(part for part, _ in zip(_leaves(head, body, 0), range(_MOST_PARTS), strict=False)))


def field(head: Message, name: str) -> str:
    """Return the first header field of that name, decoded and unfolded; ``""`` when it is missing."""
    return " ".join(fields(head, name)[:1])


def fields(head: Message, name: str) -> list[str]:
    """Return all header fields of that name, at most ten, each of at most 2,000 characters."""
    return [_decoded(value) for value in (head.get_all(name) or [])[:10]]


def head_of(raw: bytes) -> Message:
    """Parse the header of a returned mail, whether the report has the whole mail or the header only."""
    return _cut(raw)[0]


def _decoded(value: object) -> str:
    text = str(value)[:2000]
    if "=?" in text:
        try:
            text = str(make_header(decode_header(text)))
        except (ValueError, LookupError, MessageError, AssertionError):
            pass
    return " ".join(text.replace("\x00", "").split())


def _cut(raw: bytes) -> tuple[Message, bytes]:
    raw = raw.lstrip(b"\r\n")
    if raw.startswith(b"From "):  # mbox
        raw = raw.partition(b"\n")[2]
    gap = _GAP.search(raw)
    head, body = (raw[: gap.start()], raw[gap.end() :]) if gap else (raw, b"")
    return _HEADERS.parsebytes(head[:_HEAD] + b"\n\n"), body


def _leaves(head: Message, body: bytes, depth: int) -> Iterator[Part]:
    kind = head.get_content_type()
    boundary = _boundary(head) if kind.startswith("multipart/") and depth < _DEEPEST else b""
    pieces = _pieces(body, boundary) if boundary else []
    if not pieces:
        yield Part(head, kind, _plain(head, body), depth)
        return
    for piece in pieces:
        # An empty header: the part begins with the blank line that ends it.
        inner = (_HEADERS.parsebytes(b"\n"), piece) if piece.startswith((b"\n", b"\r\n")) else _cut(piece)
        yield from _leaves(*inner, depth + 1)


def _boundary(head: Message) -> bytes:
    try:
        return (head.get_boundary() or "").encode("utf-8", "surrogateescape")[:200]
    except (ValueError, LookupError, UnicodeError, TypeError):
        return b""


def _pieces(body: bytes, boundary: bytes) -> list[bytes]:
    closing = re.search(rb"(?:^|\n)--" + re.escape(boundary) + rb"--", body)
    whole = body[: closing.start()] if closing else body
    return re.split(rb"(?:^|\r?\n)--" + re.escape(boundary) + rb"[ \t]*(?:\r?\n|$)", whole, maxsplit=_MOST_PARTS)[1:]


def _plain(head: Message, body: bytes) -> bytes:
    coding = str(head.get("Content-Transfer-Encoding", "")).strip().lower()
    if coding == "base64":
        try:
            return binascii.a2b_base64(body)
        except binascii.Error:
            return body
    return quopri.decodestring(body) if coding == "quoted-printable" else body
