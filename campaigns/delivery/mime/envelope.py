"""One composed mail: the SMTP envelope (RFC 5321, section 2.3.1) and its content."""

from dataclasses import dataclass


@dataclass(slots=True)  # Frozen ones cost three times as much to make.
class OutgoingMail:
    """What SMTP needs: the envelope, and a content that ends with CRLF."""

    sender: str
    recipient: str
    content: bytes
    smtputf8: bool
    dotless: bool = False
    """Known to have no line that begins with a dot; looking for one costs as much as sending it."""
    ascii: bool = False
    """Known to have no other octets."""
