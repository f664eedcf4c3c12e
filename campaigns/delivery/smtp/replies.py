"""What a relay answers, and what its answers mean for a mail."""

import re
from dataclasses import dataclass
from enum import StrEnum
from typing import NamedTuple

_ENHANCED = re.compile(r"\s*([245])\.(\d{1,3})\.(\d{1,3})\b")
_DEAD = {"5.1.1", "5.1.2", "5.1.6", "5.1.10"}
_NO_SUCH = re.compile(
    r"(user|mailbox|recipient|address).{0,20}(unknown|not found|does ?n.t exist)|no such (user|mailbox)", re.I
)
CLOSING = 421
"""The relay says goodbye, whatever it was asked."""


class DeliveryStatus(StrEnum):
    """What became of one mail."""

    SENT = "sent"
    NO_SUCH_RECIPIENT = "no_such_recipient"  # the address does not exist: suppress it
    REJECTED = "rejected"  # the recipient's side says never, this once
    SENDER_REJECTED = "sender_rejected"  # a 5xx about us (policy, sender, sign-in): never the recipient's fault
    DEFERRED = "deferred"
    CONNECTION_LOST = "connection_lost"  # the connection broke before the last dot: not mailed
    UNKNOWN = "unknown"  # the last dot left and no answer came
    NOT_COMPOSABLE = "not_composable"  # no mail could be made for this recipient

    __hash__ = str.__hash__  # An Enum's own is slow, and each mail's fate is looked up by.


@dataclass(slots=True)
class DeliveryResult:
    """What became of a mail. Not frozen: that costs three times as much, and its lane says by which relay."""

    status: DeliveryStatus
    reply: str
    relay: str = ""
    """Who answered; empty when nobody was asked."""


class SmtpReply(NamedTuple):
    """One whole answer; ``code`` is 0 for what is no answer at all."""

    code: int
    lines: list[bytes]

    @property
    def text(self) -> str:
        if len(self.lines) == 1:
            return self.lines[0][4:].decode("utf-8", "replace").rstrip("\r")
        return "\n".join(line[4:].decode("utf-8", "replace").rstrip("\r") for line in self.lines)

    @property
    def line(self) -> str:
        """All of it as one printable line, code first."""
        if not self.code:
            return printable(b" ".join(self.lines).decode("utf-8", "replace"))
        return printable(f"{self.code} {self.text}")

    @property
    def refuses(self) -> bool:
        """Whether it is a no that leaves the connection usable."""
        return 400 <= self.code < 600 and self.code != CLOSING


def classify(code: int, text: str) -> DeliveryStatus:
    """What a negative answer means: by its enhanced code, then by its three digits."""
    match = _ENHANCED.match(text)
    enhanced = ".".join(match.groups()) if match else ""
    if code < 500:
        return DeliveryStatus.DEFERRED
    if enhanced in _DEAD or (not enhanced and code in (550, 551, 553) and _NO_SUCH.search(text)):
        return DeliveryStatus.NO_SUCH_RECIPIENT
    if enhanced.startswith(("5.7.", "5.5.", "5.3.")) or (not enhanced and code in (500, 501, 502, 503, 504, 530, 535)):
        return DeliveryStatus.SENDER_REJECTED
    return DeliveryStatus.REJECTED


def judged(reply: SmtpReply) -> DeliveryResult:
    """The outcome of a mail whose relay refused it with ``reply``."""
    return DeliveryResult(classify(reply.code, reply.text), reply.line)


def printable(text: str) -> str:
    """One line that every database keeps and every terminal shows."""
    if text.isprintable():
        return " ".join(text.split())[:500]
    return " ".join("".join(sign if sign.isprintable() else " " for sign in text).split())[:500]
