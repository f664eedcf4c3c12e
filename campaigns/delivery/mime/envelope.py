"""Composed mail: the SMTP envelope (RFC 5321, section 2.3.1) and its content."""

from dataclasses import dataclass


@dataclass(slots=True)  # Not frozen: frozen dataclasses set each field through object.__setattr__.
class OutgoingMail:
    """The envelope, and a content that ends with CRLF and has no dot stuffing."""

    sender: str
    recipient: str
    content: bytes
    smtputf8: bool
    has_no_leading_dots: bool = False
    """True when no line is known to begin with a dot; the SMTP client then skips the scan for dot stuffing."""
    is_ascii: bool = False
    """True when the content is known to be ASCII; False means unknown."""
