"""SMTP protocol of the mail catcher: the subset of RFC 5321 and RFC 2920 (pipelining) that senders use.

Implemented on ``asyncio.Protocol`` instead of an SMTP library that reads line by line, because the catcher shares the
machine's cores with the application.
"""

import asyncio
import re
from collections.abc import Callable, Sequence
from email.errors import MessageError
from email.header import decode_header, make_header

_LARGEST = 32 * 1024 * 1024
_LONGEST_LINE = 8192
_END = b"\r\n.\r\n"
_PATH = re.compile(r"(?:FROM|TO):\s*<([^>]*)>", re.I)
_SUBJECT = re.compile(rb"(?im)^Subject:[ \t]*(.*(?:\n[ \t].*)*)")
_OFFERS = (
    "250-catcher.localhost\r\n250-PIPELINING\r\n250-8BITMIME\r\n250-SMTPUTF8\r\n250-ENHANCEDSTATUSCODES\r\n"
    f"250 SIZE {_LARGEST}"
)

Keep = Callable[[str, Sequence[str], bytes], object]
"""Stores (sender, recipients, content) durably and returns the mail's id."""
Faults = dict[str, list[str]]
"""Faults for tests: the faults of each address, one consumed per attempt.

``"550 5.1.1 …"`` replies to RCPT, ``"data 451 …"`` replies to the final dot, ``"drop before"`` and ``"drop after"``
abort the connection before or after the mail is stored, ``""`` accepts the mail.
"""


class SmtpServer(asyncio.Protocol):
    """Accepts and stores every mail, apart from the injected ``faults``."""

    def __init__(self, keep: Keep, faults: Faults) -> None:
        self._keep, self._faults = keep, faults
        self._heard = bytearray()
        self._searched = 0
        self._content = False
        self._reset()
        self._words: dict[str, Callable[[str], str | None]] = {
            "MAIL": self._mail,
            "RCPT": self._rcpt,
            "DATA": self._data,
            "RSET": self._rset,
            "EHLO": lambda _: _OFFERS,
            "HELO": lambda _: "250 catcher.localhost",
            "NOOP": lambda _: "250 2.0.0 Ok",
        }

    def _reset(self) -> None:
        self._sender: str | None = None
        self._recipients: list[str] = []
        self._fault = ""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        transport.write(b"220 catcher.localhost ESMTP\r\n")

    def data_received(self, data: bytes) -> None:
        self._heard += data
        while not self._transport.is_closing() and (answer := self._next()) is not None:
            self._transport.write(f"{answer}\r\n".encode())
        if len(self._heard) > (_LARGEST if self._content else _LONGEST_LINE):
            self._transport.abort()

    def _next(self) -> str | None:
        """Return the reply to the next command or mail; None when it is incomplete or needs no reply."""
        end = self._heard.find(_END if self._content else b"\n", self._searched)
        if end < 0:
            self._searched = max(0, len(self._heard) - len(_END))
            return None
        self._searched = 0
        if self._content:
            raw = bytes(self._heard[:end])
            del self._heard[: end + len(_END)]
            return self._taken(raw)
        line = self._heard[:end].decode("utf-8", "replace").strip()
        del self._heard[: end + 1]
        if line.upper() == "QUIT":
            self._transport.write(b"221 2.0.0 Bye\r\n")
            self._transport.close()
            return None
        answered = self._words.get(line[:4].upper())
        return answered(line[4:]) if answered else "500 5.5.2 No such word here"

    def _mail(self, rest: str) -> str:
        path = _PATH.match(rest.strip())
        if path is None or self._sender is not None:
            return "503 5.5.1 One sender, as <address>"
        self._sender = path[1]
        return "250 2.1.0 Ok"

    def _rcpt(self, rest: str) -> str:
        path = _PATH.match(rest.strip())
        if path is None or self._sender is None:
            return "503 5.5.1 A sender first, then recipients, as <address>"
        faults = self._faults.get(path[1])
        fault = faults.pop(0) if faults else ""
        if fault[:1].isdigit():
            return fault
        self._recipients.append(path[1])
        self._fault = fault
        return "250 2.1.5 Ok"

    def _data(self, _rest: str) -> str | None:
        if not self._recipients:
            return "503 5.5.1 Recipients first"
        if self._fault == "drop before":
            self._transport.abort()
            return None
        self._content = True
        self._heard[:0] = b"\r\n"  # Then the end of data also matches in an empty mail.
        return "354 Go on"

    def _rset(self, _rest: str) -> str:
        self._reset()
        return "250 2.0.0 Ok"

    def _taken(self, raw: bytes) -> str | None:
        sender, recipients, fault = self._sender or "", self._recipients, self._fault
        self._content = False
        self._reset()
        if fault.startswith("data "):
            return fault.removeprefix("data ")
        number = self._keep(sender, recipients, raw.replace(b"\r\n..", b"\r\n.")[2:] + b"\r\n")
        if fault == "drop after":
            self._transport.abort()
            return None
        return f"250 2.0.0 Ok: caught as {number}"


def subject(raw: bytes) -> str:
    """Return the decoded subject of a mail; ``""`` when it has none."""
    found = _SUBJECT.search(raw.partition(b"\r\n\r\n")[0] + b"\r\n")
    folded = found[1].decode("utf-8", "replace") if found else ""
    plain = re.sub(r"\r?\n(?=[ \t])", "", folded).strip()
    if "=?" not in plain:
        return plain
    try:
        return str(make_header(decode_header(plain)))
    except (MessageError, LookupError, ValueError):
        return plain
