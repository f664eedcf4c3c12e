"""Setup of an SMTP connection: connect, greeting, EHLO, STARTTLS, AUTH."""

import asyncio
import base64
import socket
import ssl
from collections.abc import Callable
from dataclasses import dataclass
from ipaddress import ip_address
from urllib.parse import urlsplit

from campaigns import config
from campaigns.delivery.smtp.address import RelayAddress, TlsMode, is_loopback
from campaigns.delivery.smtp.protocol import ConnectionLost, SmtpProtocol
from campaigns.delivery.smtp.replies import SmtpReply, printable_line

CONNECT_TIMEOUT = 10.0
REPLY_TIMEOUT = 60.0
"""Seconds to wait for each reply before the first mail. RFC 5321 (section 4.5.3.2) allows five minutes for the
greeting, but a worker may have another relay or activity to go on with."""

_HOST_NOT_FOUND = {socket.EAI_NONAME, getattr(socket, "EAI_NODATA", socket.EAI_NONAME)}

DialogueListener = Callable[[str, str], None]
"""Receives each line of the dialogue: the side (``C`` client, ``S`` server) and the text, with secrets masked."""


class RelayUnavailable(Exception):
    """The relay cannot be used at the moment; no mail was affected."""


@dataclass(frozen=True, slots=True)
class SmtpCapabilities:
    """The capabilities from the relay's EHLO reply, after TLS if TLS is used."""

    extensions: dict[str, str]
    """Keyword in upper case → its parameters. Empty for a relay without EHLO."""

    @property
    def pipelining(self) -> bool:
        return "PIPELINING" in self.extensions

    @property
    def eight_bit(self) -> bool:
        return "8BITMIME" in self.extensions

    @property
    def smtputf8(self) -> bool:
        return "SMTPUTF8" in self.extensions

    @property
    def max_size(self) -> int | None:
        """Maximum mail size in octets (RFC 1870); 0 without a limit, None when SIZE is not offered."""
        parameter = self.extensions.get("SIZE")
        return None if parameter is None else int(parameter) if parameter.isdecimal() else 0

    @property
    def max_mails(self) -> int:
        """Maximum number of mails per connection (RFC 9422); 0 when not given."""
        for limit in self.extensions.get("LIMITS", "").upper().split():
            name, _, value = limit.partition("=")
            if name == "MAILMAX" and value.isdecimal():
                return int(value)
        return 0

    @property
    def auth_mechanisms(self) -> set[str]:
        """The offered AUTH mechanisms (RFC 4954), in upper case."""
        return set(self.extensions.get("AUTH", "").upper().split())


async def open_connection(
    relay: RelayAddress, on_dialogue: DialogueListener = lambda _who, _what: None
) -> tuple[SmtpProtocol, SmtpCapabilities]:
    """Open a connection that is ready for mail. Raises RelayUnavailable with a message for people."""
    protocol = SmtpProtocol()
    try:
        return protocol, await _Handshake(relay, protocol, on_dialogue).run()
    except (OSError, ssl.SSLError, UnicodeError) as error:
        raise RelayUnavailable(_error_text(error)) from error
    finally:
        protocol.on_lost = lambda _: None


def _error_text(error: Exception) -> str:
    if isinstance(error, TimeoutError) and not str(error):
        return "no answer in time"
    if isinstance(error, ConnectionRefusedError):
        return "connection refused"
    if isinstance(error, socket.gaierror):
        return "host not found" if error.errno in _HOST_NOT_FOUND else "the name service does not answer"
    return printable_line(str(error)) or type(error).__name__


def _is_ip_address(host: str) -> bool:
    try:
        return bool(ip_address(host))
    except ValueError:
        return False


class _Handshake:
    """The dialogue from connect to AUTH on one connection. Errors are raised as ConnectionLost, OSError and others."""

    def __init__(self, relay: RelayAddress, protocol: SmtpProtocol, on_dialogue: DialogueListener) -> None:
        self._relay, self._protocol, self._on_dialogue = relay, protocol, on_dialogue

    async def run(self) -> SmtpCapabilities:
        context = ssl.create_default_context() if self._relay.tls is not TlsMode.OFF else None
        await self._connect(context)
        try:
            await self._expect(2)
            capabilities = await self._ehlo()
            if self._relay.tls is TlsMode.VERIFY and context is not None:
                capabilities = await self._start_tls(context, capabilities)
            if self._relay.user:
                await self._authenticate(capabilities)
        except BaseException:
            self._protocol.transport.abort()
            await asyncio.sleep(0)  # The socket is closed in the loop's next iteration, which may be the last one.
            raise
        return capabilities

    async def _connect(self, context: ssl.SSLContext | None) -> None:
        relay, loop = self._relay, asyncio.get_running_loop()
        implicit = context if relay.tls is TlsMode.IMPLICIT else None
        named = relay.host if implicit else None
        async with asyncio.timeout(CONNECT_TIMEOUT):
            host = await self._public_address() if relay.public_only else relay.host
            await loop.create_connection(
                lambda: self._protocol,
                host,
                relay.port,
                ssl=implicit,
                server_hostname=named,
                happy_eyeballs_delay=None if _is_ip_address(host) else 0.25,
            )

    async def _public_address(self) -> str:
        """A public IP address of the host. Raises ConnectionLost if any of its addresses is private.

        The name is resolved only once, and the checked address is used for the connection: a second lookup could
        return another address (DNS rebinding).
        """
        found = await asyncio.get_running_loop().getaddrinfo(
            self._relay.host, self._relay.port, type=socket.SOCK_STREAM
        )
        addresses = [str(each[4][0]) for each in found]
        if not addresses or not all(ip_address(each).is_global for each in addresses):
            raise ConnectionLost("the host has a private address; PRIVATE_RELAYS=yes allows that")
        return addresses[0]

    async def _command(self, command: str, masked: str = "") -> SmtpReply:
        self._on_dialogue("C", masked or command)
        self._protocol.write(command.encode() + b"\r\n")
        return await self._read_reply()

    async def _read_reply(self) -> SmtpReply:
        reply = await self._protocol.read_reply(REPLY_TIMEOUT)
        for line in reply.lines:
            self._on_dialogue("S", printable_line(line.decode("utf-8", "replace")))
        return reply

    async def _expect(self, kind: int, reply: SmtpReply | None = None) -> SmtpReply:
        reply = reply or await self._read_reply()
        if reply.code // 100 != kind:
            raise ConnectionLost(reply.line)
        return reply

    async def _ehlo(self) -> SmtpCapabilities:
        reply = await self._command(f"EHLO {self._client_name()}")
        if 500 <= reply.code < 600:
            await self._expect(2, await self._command(f"HELO {self._client_name()}"))
            return SmtpCapabilities({})
        await self._expect(2, reply)
        lines = (line[4:].decode("ascii", "replace").strip() for line in reply.lines[1:])
        # Old relays write "AUTH=LOGIN".
        pairs = (word.replace("AUTH=", "AUTH ", 1).partition(" ") for word in lines if word)
        return SmtpCapabilities({keyword.upper(): rest.strip() for keyword, _, rest in pairs})

    def _client_name(self) -> str:
        """The argument of EHLO: our domain name if we have one, else an address literal (RFC 5321, section 4.1.3)."""
        host = urlsplit(config.settings().base_url).hostname or ""
        if "." in host and host.isascii() and not host.replace(".", "").isdecimal():
            return host
        own = str((self._protocol.transport.get_extra_info("sockname") or ("127.0.0.1",))[0])
        try:
            return f"[IPv6:{own}]" if ip_address(own).version == 6 else f"[{own}]"
        except ValueError:
            return "[127.0.0.1]"

    async def _start_tls(self, context: ssl.SSLContext, capabilities: SmtpCapabilities) -> SmtpCapabilities:
        if "STARTTLS" not in capabilities.extensions:
            raise ConnectionLost("the relay does not offer STARTTLS, and without TLS nothing is sent to it")
        await self._expect(2, await self._command("STARTTLS"))
        async with asyncio.timeout(REPLY_TIMEOUT):
            await self._protocol.start_tls(context, self._relay.host)
        return await self._ehlo()

    async def _authenticate(self, capabilities: SmtpCapabilities) -> None:
        relay, mechanisms = self._relay, capabilities.auth_mechanisms
        if relay.tls is TlsMode.OFF and not is_loopback(relay.host):
            raise ConnectionLost("sign-in without TLS is refused")
        if "PLAIN" in mechanisms or not mechanisms & {"PLAIN", "LOGIN"}:
            secret = _base64(f"\0{relay.user}\0{relay.password}")
            await self._expect(2, await self._command(f"AUTH PLAIN {secret}", "AUTH PLAIN ***"))
            return
        await self._expect(3, await self._command("AUTH LOGIN"))
        await self._expect(3, await self._command(_base64(relay.user), "***"))
        await self._expect(2, await self._command(_base64(relay.password), "***"))


def _base64(text: str) -> str:
    return base64.b64encode(text.encode()).decode()
