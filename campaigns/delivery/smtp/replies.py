"""SMTP replies, and their classification into delivery results (RFC 5321, RFC 3463)."""

import re
from dataclasses import dataclass
from enum import StrEnum
from typing import NamedTuple

_ENHANCED = re.compile(r"\s*([245])\.(\d{1,3})\.(\d{1,3})\b")
_NO_SUCH_RECIPIENT_CODES = {"5.1.1", "5.1.2", "5.1.6", "5.1.10"}
_NO_SUCH_RECIPIENT_TEXT = re.compile(
    r"(user|mailbox|recipient|address).{0,20}(unknown|not found|does ?n.t exist)|no such (user|mailbox)", re.I
)
SERVICE_CLOSING = 421
"""The relay closes the connection; it may send this code in reply to any command (RFC 5321, section 3.8)."""


class DeliveryStatus(StrEnum):
    """Result of one attempt to deliver a mail."""

    SENT = "sent"
    NO_SUCH_RECIPIENT = "no_such_recipient"  # the address does not exist: suppress it
    REJECTED = "rejected"  # a permanent rejection for this recipient; the address stays valid
    SENDER_REJECTED = "sender_rejected"  # a 5xx about us (policy, sender, authentication), not about the recipient
    DEFERRED = "deferred"  # a temporary rejection (4xx)
    CONNECTION_LOST = "connection_lost"  # the connection ended before the final dot: not mailed
    UNKNOWN = "unknown"  # the final dot was sent and no reply came
    NOT_COMPOSABLE = "not_composable"  # no mail could be composed for this recipient

    __hash__ = str.__hash__  # Enum.__hash__ is written in Python, and the status of each mail is a dictionary key.


@dataclass(slots=True)
class DeliveryResult:
    """Status and reply of one attempt. Not frozen, because the connection pool fills in the relay."""

    status: DeliveryStatus
    reply: str
    relay: str = ""
    """``host:port`` of the relay that replied; '' when none was contacted."""


class SmtpReply(NamedTuple):
    """One complete, possibly multi-line reply. ``code`` is 0 for bytes that are not an SMTP reply."""

    code: int
    lines: list[bytes]

    @property
    def text(self) -> str:
        """The text without codes; the lines are separated by LF."""
        if len(self.lines) == 1:
            return self.lines[0][4:].decode("utf-8", "replace").rstrip("\r")
        return "\n".join(line[4:].decode("utf-8", "replace").rstrip("\r") for line in self.lines)

    @property
    def line(self) -> str:
        """The whole reply as one printable line, code first."""
        if not self.code:
            return printable_line(b" ".join(self.lines).decode("utf-8", "replace"))
        return printable_line(f"{self.code} {self.text}")

    @property
    def is_rejection(self) -> bool:
        """Whether it is a rejection (4xx, 5xx) that leaves the connection usable, i.e. not 421."""
        return 400 <= self.code < 600 and self.code != SERVICE_CLOSING


def classify(code: int, text: str) -> DeliveryStatus:
    """The status of a negative reply: by its enhanced status code (RFC 3463) if there is one, else by its code."""
    match = _ENHANCED.match(text)
    enhanced = ".".join(match.groups()) if match else ""
    if code < 500:
        return DeliveryStatus.DEFERRED
    if enhanced in _NO_SUCH_RECIPIENT_CODES or (
        not enhanced and code in (550, 551, 553) and _NO_SUCH_RECIPIENT_TEXT.search(text)
    ):
        return DeliveryStatus.NO_SUCH_RECIPIENT
    if enhanced.startswith(("5.7.", "5.5.", "5.3.")) or (not enhanced and code in (500, 501, 502, 503, 504, 530, 535)):
        return DeliveryStatus.SENDER_REJECTED
    return DeliveryStatus.REJECTED


def rejection_result(reply: SmtpReply) -> DeliveryResult:
    """The result of a mail that the relay rejected with ``reply``."""
    return DeliveryResult(classify(reply.code, reply.text), reply.line)


def printable_line(text: str) -> str:
    """``text`` as one printable line of at most 500 characters, safe for databases (no NUL) and terminals."""
    if text.isprintable():
        return " ".join(text.split())[:500]
    return " ".join("".join(sign if sign.isprintable() else " " for sign in text).split())[:500]
