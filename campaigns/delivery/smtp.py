"""A connection to the relay, and what its answers mean.

One mail at a time, each answer read before the next word: plain and correct first.
"""

import re
import smtplib
import socket
import ssl
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from ipaddress import ip_address
from urllib.parse import parse_qs, unquote, urlsplit

from campaigns import config
from campaigns.delivery.claiming import FINAL_DOT
from campaigns.delivery.compose import Mail

_CONNECT = 10.0
_COMMAND = 300.0  # RFC 5321, 4.5.3.2: five minutes for MAIL and RCPT
_ENHANCED = re.compile(r"\s*([245])\.(\d{1,3})\.(\d{1,3})\b")
_DEAD = {"5.1.1", "5.1.2", "5.1.6", "5.1.10"}


class Fate(StrEnum):
    """What became of one mail."""

    SENT = "sent"
    DEAD = "dead"  # the address does not exist: suppress it
    REFUSED = "refused"  # the recipient's side says never, this once
    OURS = "ours"  # a 5xx about us (policy, sender, sign-in): never the recipient's fault
    LATER = "later"
    LOST = "lost"  # the connection broke before the last dot: not mailed
    UNKNOWN = "unknown"  # the last dot left and no answer came
    BROKEN = "broken"  # no mail could be made for this recipient


@dataclass(frozen=True, slots=True)
class Outcome:
    fate: Fate
    reply: str


class RelayDown(Exception):
    """The relay can't be used at all just now; no mail was touched."""


@dataclass(frozen=True, slots=True)
class RelayAddress:
    """Where and how to reach the relay: ``smtp[s]://user:password@host:port?tls=verify|off``."""

    host: str
    port: int
    user: str
    password: str
    implicit_tls: bool
    tls: bool
    """Whether STARTTLS with a verified certificate is required. Off only on loopback or when told."""

    @property
    def name(self) -> str:
        return f"{self.host}:{self.port}"


def relay_address() -> RelayAddress:
    """The relay of the settings."""
    parts = urlsplit(config.settings().smtp_url)
    host = parts.hostname or "127.0.0.1"
    implicit = parts.scheme == "smtps"
    tls = parse_qs(parts.query).get("tls", ["off" if _loopback(host) else "verify"])[0]
    port = parts.port or (465 if implicit else 25)
    return RelayAddress(
        host,
        port,
        unquote(parts.username or ""),
        unquote(parts.password or ""),
        implicit,
        tls != "off" and not implicit,
    )


def _loopback(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def classify(code: int, text: str) -> Fate:
    """What a negative answer means: by its enhanced code, then by its three digits."""
    match = _ENHANCED.match(text)
    enhanced = ".".join(match.groups()) if match else ""
    if code < 500:
        return Fate.LATER
    if enhanced in _DEAD or (not enhanced and code in (550, 551, 553) and _NO_SUCH.search(text)):
        return Fate.DEAD
    if enhanced.startswith(("5.7.", "5.5.", "5.3.")) or (not enhanced and code in (500, 501, 502, 503, 504, 530, 535)):
        return Fate.OURS
    return Fate.REFUSED


_NO_SUCH = re.compile(
    r"(user|mailbox|recipient|address).{0,20}(unknown|not found|does ?n.t exist)|no such (user|mailbox)", re.I
)


class Connection:
    """An open connection; raises RelayDown when it can't be had."""

    def __init__(self, relay: RelayAddress) -> None:
        self.relay = relay
        try:
            self._client = self._open()
        except (OSError, smtplib.SMTPException) as error:
            raise RelayDown(_words(error)) from error

    def _open(self) -> smtplib.SMTP:
        relay, context = self.relay, ssl.create_default_context()
        client: smtplib.SMTP
        if relay.implicit_tls:
            client = smtplib.SMTP_SSL(relay.host, relay.port, timeout=_CONNECT, context=context)
        else:
            client = smtplib.SMTP(relay.host, relay.port, timeout=_CONNECT)
        try:
            self._greet(client, context)
        except BaseException:
            client.close()
            raise
        return client

    def _greet(self, client: smtplib.SMTP, context: ssl.SSLContext) -> None:
        relay = self.relay
        if relay.tls:
            client.starttls(context=context)
        if relay.user:
            if not (relay.tls or relay.implicit_tls or _loopback(relay.host)):
                raise smtplib.SMTPException("sign-in without TLS is refused")
            client.login(relay.user, relay.password)
        client.ehlo_or_helo_if_needed()
        assert client.sock is not None
        client.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)  # The dot is a packet of its own.
        client.sock.settimeout(_COMMAND)

    def send(self, mail: Mail, before_dot: Callable[[], None]) -> Outcome:
        """Send one mail. ``before_dot`` is called when the next byte may make it a delivered one.

        After LOST and UNKNOWN the connection is of no more use.
        """
        try:
            refused = self._envelope(mail)
            if refused is not None:
                self._client.rset()
                return refused
            self._client.send(_stuffed(mail.content))
        except (OSError, smtplib.SMTPException) as error:
            self.close()
            return Outcome(Fate.LOST, _words(error))
        before_dot()
        return self._dot()

    def _envelope(self, mail: Mail) -> Outcome | None:
        client = self._client
        if mail.smtputf8 and not client.has_extn("smtputf8"):
            return Outcome(Fate.REFUSED, "553 5.6.7 the relay takes no addresses beyond ASCII")
        options = " SMTPUTF8" if mail.smtputf8 else ""
        size = f" SIZE={len(mail.content)}" if client.has_extn("size") else ""
        client.command_encoding = "utf-8" if mail.smtputf8 else "ascii"
        for command in (f"MAIL FROM:<{mail.sender}>{size}{options}", f"RCPT TO:<{mail.recipient}>", "DATA"):
            code, said = client.docmd(command)
            text = said.decode("utf-8", "replace")
            if code == 421 or not 200 <= code < 600:
                raise smtplib.SMTPServerDisconnected(_line(code, text))
            if code != 354 if command == "DATA" else not 200 <= code < 300:
                if code < 400:  # The relay is not where we are: no later answer could be trusted.
                    raise smtplib.SMTPServerDisconnected(_line(code, text))
                fate = classify(code, text)
                # A refused MAIL speaks of us, whatever its code: nobody has been named yet.
                if command.startswith("MAIL") and fate in (Fate.DEAD, Fate.REFUSED):
                    fate = Fate.OURS
                return Outcome(fate, _line(code, text))
        return None

    def _dot(self) -> Outcome:
        client = self._client
        assert client.sock is not None
        client.sock.settimeout(FINAL_DOT)
        try:
            client.send(b".\r\n")
            code, said = client.getreply()
        except (OSError, smtplib.SMTPException) as error:
            self.close()
            return Outcome(Fate.UNKNOWN, _words(error))
        text = said.decode("utf-8", "replace")
        if not (200 <= code < 300 or 400 <= code < 600):  # It says nothing about the mail, which may be taken.
            self.close()
            return Outcome(Fate.UNKNOWN, _line(code, text))
        client.sock.settimeout(_COMMAND)
        return Outcome(Fate.SENT if code < 300 else classify(code, text), _line(code, text))

    def close(self) -> None:
        """Say goodbye without waiting for an answer."""
        try:
            self._client.putcmd("QUIT")
        except (OSError, smtplib.SMTPException):
            pass
        self._client.close()


def _stuffed(content: bytes) -> bytes:
    return re.sub(rb"(?m)^\.", b"..", content)


def _line(code: int, text: str) -> str:
    return _printable(f"{code} {text}")


def _printable(text: str) -> str:
    """One line that every database keeps and every terminal shows."""
    return " ".join("".join(sign if sign.isprintable() else " " for sign in text).split())[:500]


def _words(error: Exception) -> str:
    if isinstance(error, smtplib.SMTPResponseException):
        said = error.smtp_error
        return _line(error.smtp_code, said.decode("utf-8", "replace") if isinstance(said, bytes) else said)
    return _printable(str(error)) or type(error).__name__
