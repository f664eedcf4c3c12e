"""SMTP protocol of the mail catcher: the subset of RFC 5321 and RFC 2920 (pipelining) that senders use.

Implemented on ``asyncio.Protocol`` instead of an SMTP library that reads line by line, because the catcher shares the
machine's cores with the application.
"""

import asyncio
import re
from collections.abc import Callable, Sequence
from email.errors import MessageError
from email.header import decode_header, make_header

_MAX_MAIL_BYTES = 32 * 1024 * 1024
_MAX_LINE_BYTES = 8192
_END_OF_DATA = b"\r\n.\r\n"
_MAILBOX_PATH = re.compile(r"(?:FROM|TO):\s*<([^>]*)>", re.I)
_SUBJECT = re.compile(rb"(?im)^Subject:[ \t]*(.*(?:\n[ \t].*)*)")
_EHLO_REPLY = (
    "250-catcher.localhost\r\n250-PIPELINING\r\n250-8BITMIME\r\n250-SMTPUTF8\r\n250-ENHANCEDSTATUSCODES\r\n"
    f"250 SIZE {_MAX_MAIL_BYTES}"
)

StoreMail = Callable[[str, Sequence[str], bytes], object]
"""Stores (sender, recipients, content) durably and returns the mail's id."""
Faults = dict[str, list[str]]
"""Faults for tests: the faults of each address, one consumed per attempt.

``"550 5.1.1 …"`` replies to RCPT, ``"data 451 …"`` replies to the final dot, ``"drop before"`` and ``"drop after"``
abort the connection before or after the mail is stored, ``""`` accepts the mail.
"""


class SmtpServer(asyncio.Protocol):
    """Accepts and stores every mail, apart from the injected ``faults``."""

    def __init__(self, store_mail: StoreMail, faults: Faults) -> None:
        self._store_mail, self._faults = store_mail, faults
        self._buffer = bytearray()
        self._search_from = 0
        self._in_data = False
        self._reset()
        self._commands: dict[str, Callable[[str], str | None]] = {
            "MAIL": self._mail,
            "RCPT": self._rcpt,
            "DATA": self._data,
            "RSET": self._rset,
            "EHLO": lambda _: _EHLO_REPLY,
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
        self._buffer += data
        while not self._transport.is_closing() and (reply := self._next_reply()) is not None:
            self._transport.write(f"{reply}\r\n".encode())
        if len(self._buffer) > (_MAX_MAIL_BYTES if self._in_data else _MAX_LINE_BYTES):
            self._transport.abort()

    def _next_reply(self) -> str | None:
        """Return the reply to the next command or mail; None when it is incomplete or needs no reply."""
        end = self._buffer.find(_END_OF_DATA if self._in_data else b"\n", self._search_from)
        if end < 0:
            self._search_from = max(0, len(self._buffer) - len(_END_OF_DATA))
            return None
        self._search_from = 0
        if self._in_data:
            raw = bytes(self._buffer[:end])
            del self._buffer[: end + len(_END_OF_DATA)]
            return self._finish_mail(raw)
        line = self._buffer[:end].decode("utf-8", "replace").strip()
        del self._buffer[: end + 1]
        if line.upper() == "QUIT":
            self._transport.write(b"221 2.0.0 Bye\r\n")
            self._transport.close()
            return None
        command = self._commands.get(line[:4].upper())
        return command(line[4:]) if command else "500 5.5.2 No such word here"

    def _mail(self, rest: str) -> str:
        path = _MAILBOX_PATH.match(rest.strip())
        if path is None or self._sender is not None:
            return "503 5.5.1 One sender, as <address>"
        self._sender = path[1]
        return "250 2.1.0 Ok"

    def _rcpt(self, rest: str) -> str:
        path = _MAILBOX_PATH.match(rest.strip())
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
        self._in_data = True
        self._buffer[:0] = b"\r\n"  # Then the end of data also matches in an empty mail.
        return "354 Go on"

    def _rset(self, _rest: str) -> str:
        self._reset()
        return "250 2.0.0 Ok"

    def _finish_mail(self, raw: bytes) -> str | None:
        sender, recipients, fault = self._sender or "", self._recipients, self._fault
        self._in_data = False
        self._reset()
        if fault.startswith("data "):
            return fault.removeprefix("data ")
        mail_id = self._store_mail(sender, recipients, raw.replace(b"\r\n..", b"\r\n.")[2:] + b"\r\n")
        if fault == "drop after":
            self._transport.abort()
            return None
        return f"250 2.0.0 Ok: caught as {mail_id}"


def decode_subject(raw: bytes) -> str:
    """Return the decoded subject of a mail; ``""`` when it has none."""
    match = _SUBJECT.search(raw.partition(b"\r\n\r\n")[0] + b"\r\n")
    folded = match[1].decode("utf-8", "replace") if match else ""
    unfolded = re.sub(r"\r?\n(?=[ \t])", "", folded).strip()
    if "=?" not in unfolded:
        return unfolded
    try:
        return str(make_header(decode_header(unfolded)))
    except (MessageError, LookupError, ValueError):
        return unfolded
