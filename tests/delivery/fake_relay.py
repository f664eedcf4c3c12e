"""Fake SMTP relay with scripted, also invalid, replies; and a mail source for testing connections."""

import asyncio
import dataclasses
import socket
import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field

from campaigns import config
from campaigns.delivery.mime.envelope import OutgoingMail
from campaigns.delivery.smtp.address import RelayAddress, relay_from_settings
from campaigns.delivery.smtp.connection import Connection, Job
from campaigns.delivery.smtp.handshake import open_connection
from campaigns.delivery.smtp.replies import DeliveryResult

DROP, HANG = b"<drop>", b"<hang>"
EHLO = b"250-strange\r\n250-PIPELINING\r\n250 SIZE 1000000"
Reply = bytes | Callable[[int], bytes]


@dataclass
class Strange:
    """A relay with a scripted reply per command. A callable gets the number of the mail on this relay, from 0.

    The replies :data:`DROP` and :data:`HANG` close the connection, at once or after 3 seconds.
    """

    greeting: bytes = b"220 strange"
    ehlo: bytes = EHLO
    helo: bytes = b"250 strange"
    mail: Reply = b"250 ok"
    rcpt: Reply = b"250 ok"
    data: Reply = b"354 go"
    dot: Reply = b"250 2.0.0 taken"
    rset: bytes = b"250 ok"
    auth: bytes = b"502 what?"
    bytewise: bool = False
    """Whether each octet of a reply is sent on its own."""
    contents: list[bytes] = field(default_factory=list)
    """Received contents, in order."""
    commands: list[bytes] = field(default_factory=list)
    """Received commands, in order."""
    threads: list[threading.Thread] = field(default_factory=list)
    mails: int = -1
    port: int = 0

    def serve(self, listener: socket.socket) -> None:
        while True:
            try:
                peer, _ = listener.accept()
            except OSError:
                return
            self.threads.append(threading.Thread(target=self._serve_client, args=(peer,), daemon=True))
            self.threads[-1].start()

    def _serve_client(self, peer: socket.socket) -> None:
        with peer, peer.makefile("rb") as lines:
            peer.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            try:
                if self._send_reply(peer, self.greeting):
                    for line in lines:
                        if not self._handle_command(peer, line.rstrip(b"\r\n"), lines):
                            break
            except OSError:
                pass

    def _handle_command(self, peer: socket.socket, line: bytes, lines: object) -> bool:
        self.commands.append(line)
        command = line[:4].upper().decode()
        if command == "QUIT":
            return False
        if command == "MAIL":
            self.mails += 1
        reply = getattr(self, command.lower(), b"502 what?")
        reply = reply(self.mails) if callable(reply) else reply
        if not self._send_reply(peer, reply):
            return False
        if command == "DATA" and reply.startswith(b"354"):
            return self._read_content(peer, lines)
        return True

    def _read_content(self, peer: socket.socket, lines: object) -> bool:
        content = []
        while (line := lines.readline()) != b".\r\n":  # type: ignore[attr-defined]
            if not line:
                return False
            content.append(line)
        self.contents.append(b"".join(content))
        return self._send_reply(peer, self.dot(self.mails) if callable(self.dot) else self.dot)

    def _send_reply(self, peer: socket.socket, reply: bytes) -> bool:
        if reply == HANG:
            threading.Event().wait(3)
        if reply in (DROP, HANG):
            return False
        octets = reply + b"\r\n"
        for part in (octets[n : n + 1] for n in range(len(octets))) if self.bytewise else [octets]:
            peer.sendall(part)
        return True


@contextmanager
def run_server(serve: Callable[[socket.socket], None]) -> Iterator[int]:
    """Run ``serve`` in a thread with a listening socket on loopback. Yields its port."""
    listener = socket.create_server(("127.0.0.1", 0))
    acceptor = threading.Thread(target=serve, args=(listener,), daemon=True)
    acceptor.start()
    try:
        yield int(listener.getsockname()[1])
    finally:
        # shutdown() wakes the thread. A thread left in accept() on a closed socket would, after a signal, accept on
        # whatever socket has reused the descriptor's number.
        with suppress(OSError):  # On systems other than Linux, closing wakes it.
            listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        acceptor.join()


@contextmanager
def run_fake_relay(settings: config.Settings, **answers: object) -> Iterator[Strange]:
    """Run a fake relay and set SMTP_URL to it."""
    relay = Strange(**answers)  # type: ignore[arg-type]
    with run_server(relay.serve) as relay.port:
        config.set_settings(dataclasses.replace(settings, smtp_url=f"smtp://127.0.0.1:{relay.port}?connections=1"))
        yield relay


@dataclass
class MailQueue:
    """A mail source with given mails that records all calls."""

    mails: deque[OutgoingMail]
    sending_allowed: bool = True
    outcomes: dict[str, DeliveryResult] = field(default_factory=dict)
    dots: list[str] = field(default_factory=list)
    given_back: list[str] = field(default_factory=list)

    def take(self) -> Job | None:
        return Job(self.mails.popleft()) if self.mails else None

    def may_go(self, _job: Job) -> bool:
        return self.sending_allowed

    def before_dot(self, job: Job) -> None:
        self.dots.append(job.mail.recipient)

    def settle(self, job: Job, outcome: DeliveryResult) -> None:
        assert job.mail.recipient not in self.outcomes, "settled twice"
        self.outcomes[job.mail.recipient] = outcome

    def give_back(self, job: Job) -> None:
        self.given_back.append(job.mail.recipient)

    @property
    def statuses(self) -> list[str]:
        return [outcome.status.value for outcome in self.outcomes.values()]


def make_mail(recipient: str, content: bytes = b"Subject: x\r\n\r\nbody\r\n") -> OutgoingMail:
    return OutgoingMail("b+x@example.org", recipient, content, not recipient.isascii())


def make_mails(count: int) -> list[OutgoingMail]:
    return [make_mail(f"n{number}@example.net") for number in range(count)]


def send_mails(
    mails: Sequence[OutgoingMail], relay: RelayAddress | None = None, *, sending_allowed: bool = True
) -> MailQueue:
    """Send ``mails`` over one connection and return the mail source with the results. Raises RelayUnavailable."""
    source = MailQueue(deque(mails), sending_allowed)
    asyncio.run(_send_mails(source, relay or relay_from_settings()))
    return source


async def _send_mails(source: MailQueue, relay: RelayAddress) -> None:
    protocol, capabilities = await open_connection(relay)
    ended = asyncio.Event()
    connection = Connection(protocol, capabilities, relay, source, lambda _connection, _why: ended.set())
    connection.send_next()
    while not connection.is_idle and not ended.is_set():
        await asyncio.sleep(0.001)
    connection.close()
    await connection.wait_closed(0.5)
