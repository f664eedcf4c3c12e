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

MAX_PARSED_BYTES = 2_000_000
"""Bytes that are parsed. A report begins with the relevant parts; the returned mail comes last."""
_MAX_DEPTH = 6
_MAX_PARTS = 60
_MAX_HEADER_BYTES = 64_000
_BLANK_LINE = re.compile(rb"\r?\n[ \t]*\r?\n")
_HEADER_PARSER = BytesHeaderParser()
_MAX_TEXT_CHARS = 100_000


@dataclass(frozen=True, slots=True)
class Part:
    """A leaf of the MIME tree: its header, content type and decoded body."""

    head: Message
    content_type: str
    body: bytes
    depth: int

    @property
    def text(self) -> str:
        """The body as text, at most 100,000 characters."""
        try:
            charset = str(self.head.get_content_charset() or "utf-8")
            text = self.body[:_MAX_TEXT_CHARS].decode(charset, "replace")
        except (LookupError, ValueError, UnicodeError, TypeError, AttributeError):
            text = self.body[:_MAX_TEXT_CHARS].decode("utf-8", "replace")
        return text.replace("\x00", "")


@dataclass(frozen=True, slots=True)
class ParsedMail:
    """A mail's header and its leaf parts in order."""

    head: Message
    parts: tuple[Part, ...]


def parse_mail(raw: bytes) -> ParsedMail:
    """Parse a mail; never raises."""
    head, body = _split_header(raw[:MAX_PARSED_BYTES])
    return ParsedMail(head, tuple(part for part, _ in zip(_leaf_parts(head, body, 0), range(_MAX_PARTS), strict=False)))


def field(head: Message, name: str) -> str:
    """Return the first header field of that name, decoded and unfolded; ``""`` when it is missing."""
    return " ".join(fields(head, name)[:1])


def fields(head: Message, name: str) -> list[str]:
    """Return all header fields of that name, at most ten, each of at most 2,000 characters."""
    return [_decode_value(value) for value in (head.get_all(name) or [])[:10]]


def parse_header(raw: bytes) -> Message:
    """Parse the header of a returned mail, whether the report has the whole mail or the header only."""
    return _split_header(raw)[0]


def _decode_value(value: object) -> str:
    text = str(value)[:2000]
    if "=?" in text:
        try:
            text = str(make_header(decode_header(text)))
        except (ValueError, LookupError, MessageError, AssertionError):
            pass
    return " ".join(text.replace("\x00", "").split())


def _split_header(raw: bytes) -> tuple[Message, bytes]:
    raw = raw.lstrip(b"\r\n")
    if raw.startswith(b"From "):  # mbox
        raw = raw.partition(b"\n")[2]
    blank_line = _BLANK_LINE.search(raw)
    head, body = (raw[: blank_line.start()], raw[blank_line.end() :]) if blank_line else (raw, b"")
    return _HEADER_PARSER.parsebytes(head[:_MAX_HEADER_BYTES] + b"\n\n"), body


def _leaf_parts(head: Message, body: bytes, depth: int) -> Iterator[Part]:
    content_type = head.get_content_type()
    boundary = _boundary(head) if content_type.startswith("multipart/") and depth < _MAX_DEPTH else b""
    pieces = _split_parts(body, boundary) if boundary else []
    if not pieces:
        yield Part(head, content_type, _decode_body(head, body), depth)
        return
    for piece in pieces:
        # An empty header: the part begins with the blank line that ends it.
        header_and_body = (
            (_HEADER_PARSER.parsebytes(b"\n"), piece) if piece.startswith((b"\n", b"\r\n")) else _split_header(piece)
        )
        yield from _leaf_parts(*header_and_body, depth + 1)


def _boundary(head: Message) -> bytes:
    try:
        return (head.get_boundary() or "").encode("utf-8", "surrogateescape")[:200]
    except (ValueError, LookupError, UnicodeError, TypeError):
        return b""


def _split_parts(body: bytes, boundary: bytes) -> list[bytes]:
    closing = re.search(rb"(?:^|\n)--" + re.escape(boundary) + rb"--", body)
    content = body[: closing.start()] if closing else body
    return re.split(rb"(?:^|\r?\n)--" + re.escape(boundary) + rb"[ \t]*(?:\r?\n|$)", content, maxsplit=_MAX_PARTS)[1:]


def _decode_body(head: Message, body: bytes) -> bytes:
    encoding = str(head.get("Content-Transfer-Encoding", "")).strip().lower()
    if encoding == "base64":
        try:
            return binascii.a2b_base64(body)
        except binascii.Error:
            return body
    return quopri.decodestring(body) if encoding == "quoted-printable" else body
