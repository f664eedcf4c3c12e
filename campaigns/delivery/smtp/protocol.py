"""asyncio protocol of one SMTP connection: parses complete replies, tracks write buffering and the connection's end."""

import asyncio
import socket
from collections import deque
from collections.abc import Callable, Sequence

from campaigns.delivery.smtp.replies import SmtpReply

_SEND_BUFFER = 512 * 1024  # bytes; a usual mail fits, so that a write need not wait for the relay to read
_MAX_LINE = 8192
_READ_BUFFER = 16384
_MAX_LINES = 256


class ConnectionLost(OSError):
    """The connection has ended or is no longer in a defined state."""


class SmtpProtocol(asyncio.BufferedProtocol):
    """Splits received bytes into SMTP replies, and knows whether all written bytes have reached the kernel."""

    def __init__(self) -> None:
        self.transport: asyncio.Transport
        self.is_flushed = True
        """Whether everything written has been handed to the kernel."""
        self.end_reason: str | None = None
        """The reason why the connection ended; None while it is open."""
        self.on_reply: Callable[[SmtpReply], None] = self._queue_reply
        self.on_lines: Callable[[Sequence[bytes]], bool] = lambda _: False
        """Called first with the lines that arrived together; returns True when it has handled all of them."""
        self.on_flushed: Callable[[], None] = lambda: None
        self.on_lost: Callable[[str], None] = lambda _: None
        self._buffer = memoryview(bytearray(_READ_BUFFER))
        self._partial = b""
        self._continuation_lines: list[bytes] = []
        self._replies: deque[SmtpReply] = deque()
        self._waiter: asyncio.Future[None] | None = None
        self._closed = asyncio.Event()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport
        _pause_on_any_buffered_byte(transport)
        opened = transport.get_extra_info("socket")
        if opened is not None and opened.family in (socket.AF_INET, socket.AF_INET6):
            opened.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            opened.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _SEND_BUFFER)

    def pause_writing(self) -> None:
        self.is_flushed = False

    def resume_writing(self) -> None:
        self.is_flushed = True
        self.on_flushed()

    def write(self, octets: bytes) -> None:
        self.transport.write(octets)

    def get_buffer(self, _wanted: int) -> memoryview:
        """A small reusable buffer. Replies are short, and asyncio's streaming protocol would allocate 256 KiB for each
        read."""
        return self._buffer

    def buffer_updated(self, count: int) -> None:
        lines = (self._partial + self._buffer[:count]).split(b"\n")
        self._partial = lines.pop()
        if not self._continuation_lines and self.on_lines(lines):
            return
        for line in lines:
            if self.end_reason is not None:
                return
            digits = line[:3]
            code = int(digits) if len(digits) == 3 and digits.isdigit() else 0
            if code and line[3:4] == b"-":
                self._continuation_lines.append(line)
                continue
            if line[3:4] not in (b" ", b"\r", b""):
                code = 0
            reply = SmtpReply(code, [*self._continuation_lines, line] if self._continuation_lines else [line])
            self._continuation_lines = []
            self.on_reply(reply)
        if len(self._partial) > _MAX_LINE or len(self._continuation_lines) > _MAX_LINES:
            self.abort("the relay's answer has no end")

    def eof_received(self) -> bool:
        return False

    def connection_lost(self, error: Exception | None) -> None:
        self._closed.set()
        self._end(str(error) if error else "the relay closed the connection")

    def abort(self, reason: str) -> None:
        """Abort the connection; unflushed bytes are never sent."""
        if self.end_reason is None:
            self.transport.abort()
            self._end(reason)

    async def wait_closed(self, seconds: float) -> None:
        """Wait until a closing connection is closed; abort it after ``seconds``.

        A relay that does not read our QUIT, or does not answer the TLS close_notify, would otherwise keep the socket
        open beyond the end of the event loop.
        """
        try:
            async with asyncio.timeout(seconds):
                await self._closed.wait()
        except TimeoutError:
            self.transport.abort()
            await asyncio.sleep(0)  # The socket is closed in the loop's next iteration.

    def _end(self, reason: str) -> None:
        if self.end_reason is not None:
            return
        self.end_reason = reason
        self._wake_waiter()
        self.on_lost(reason)

    def _queue_reply(self, reply: SmtpReply) -> None:
        self._replies.append(reply)
        self._wake_waiter()

    def _wake_waiter(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    async def read_reply(self, seconds: float) -> SmtpReply:
        """Read the next reply; only before ``on_reply`` is replaced. Raises ConnectionLost and TimeoutError."""
        if not self._replies and self.end_reason is None:
            self._waiter = asyncio.get_running_loop().create_future()
            async with asyncio.timeout(seconds):
                await self._waiter
        if not self._replies:
            raise ConnectionLost(self.end_reason or "")
        return self._replies.popleft()

    async def start_tls(self, context: object, host: str) -> None:
        """Upgrade the connection to TLS.

        Raises ConnectionLost when the relay has sent anything beyond its reply to STARTTLS: unencrypted bytes would
        otherwise be read as replies inside TLS (response injection).
        """
        if self._replies or self._partial or self._continuation_lines:
            raise ConnectionLost("the relay sent data after its reply to STARTTLS")
        loop = asyncio.get_running_loop()
        tls_transport = await loop.start_tls(self.transport, self, context, server_hostname=host)  # type: ignore[arg-type]
        assert isinstance(tls_transport, asyncio.Transport)
        self.transport = tls_transport
        _pause_on_any_buffered_byte(tls_transport)


def _pause_on_any_buffered_byte(transport: asyncio.Transport) -> None:
    """Set the limits so that any byte in asyncio's write buffer pauses writing, which makes ``is_flushed`` exact.

    A plain transport pauses above the high limit, a TLS transport at the limit.
    """
    transport.set_write_buffer_limits(high=1 if transport.get_extra_info("sslcontext") else 0, low=0)
