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
from campaigns.delivery.smtp.address import RelayAddress, relay_address
from campaigns.delivery.smtp.connection import Connection, Job
from campaigns.delivery.smtp.handshake import greet
from campaigns.delivery.smtp.replies import DeliveryResult

DROP, HANG = b"<drop>", b"<hang>"
EHLO = b"250-strange\r\n250-PIPELINING\r\n250 SIZE 1000000"
Answer = bytes | Callable[[int], bytes]


@dataclass
class Strange:
    """A relay with a scripted reply per command. A callable gets the number of the mail on this relay, from 0.

    The replies :data:`DROP` and :data:`HANG` close the connection, at once or after 3 seconds.
    """

    greeting: bytes = b"220 strange"
    ehlo: bytes = EHLO
    helo: bytes = b"250 strange"
    mail: Answer = b"250 ok"
    rcpt: Answer = b"250 ok"
    data: Answer = b"354 go"
    dot: Answer = b"250 2.0.0 taken"
    rset: bytes = b"250 ok"
    auth: bytes = b"502 what?"
    bytewise: bool = False
    """Whether each octet of a reply is sent on its own."""
    taken: list[bytes] = field(default_factory=list)
    """Received contents, in order."""
    words: list[bytes] = field(default_factory=list)
    """Received commands, in order."""
    talks: list[threading.Thread] = field(default_factory=list)
    mails: int = -1
    port: int = 0

    def serve(self, listener: socket.socket) -> None:
        while True:
            try:
                peer, _ = listener.accept()
            except OSError:
                return
            self.talks.append(threading.Thread(target=self._talk, args=(peer,), daemon=True))
            self.talks[-1].start()

    def _talk(self, peer: socket.socket) -> None:
        with peer, peer.makefile("rb") as lines:
            peer.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            try:
                if self._say(peer, self.greeting):
                    for line in lines:
                        if not self._hear(peer, line.rstrip(b"\r\n"), lines):
                            break
            except OSError:
                pass

    def _hear(self, peer: socket.socket, line: bytes, lines: object) -> bool:
        self.words.append(line)
        word = line[:4].upper().decode()
        if word == "QUIT":
            return False
        if word == "MAIL":
            self.mails += 1
        answer = getattr(self, word.lower(), b"502 what?")
        answer = answer(self.mails) if callable(answer) else answer
        if not self._say(peer, answer):
            return False
        if word == "DATA" and answer.startswith(b"354"):
            return self._content(peer, lines)
        return True

    def _content(self, peer: socket.socket, lines: object) -> bool:
        content = []
        while (line := lines.readline()) != b".\r\n":  # type: ignore[attr-defined]
            if not line:
                return False
            content.append(line)
        self.taken.append(b"".join(content))
        return self._say(peer, self.dot(self.mails) if callable(self.dot) else self.dot)

    def _say(self, peer: socket.socket, answer: bytes) -> bool:
        if answer == HANG:
            threading.Event().wait(3)
        if answer in (DROP, HANG):
            return False
        octets = answer + b"\r\n"
        for part in (octets[n : n + 1] for n in range(len(octets))) if self.bytewise else [octets]:
            peer.sendall(part)
        return True


@contextmanager
def serving(serve: Callable[[socket.socket], None]) -> Iterator[int]:
    """Run ``serve`` in a thread with a listening socket on loopback. Yields its port."""
    listener = socket.create_server(("127.0.0.1", 0))
    door = threading.Thread(target=serve, args=(listener,), daemon=True)
    door.start()
    try:
        yield int(listener.getsockname()[1])
    finally:
        # shutdown() wakes the thread. A thread left in accept() on a closed socket would, after a signal, accept on
        # whatever socket has reused the descriptor's number.
        with suppress(OSError):  # On systems other than Linux, closing wakes it.
            listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        door.join()


@contextmanager
def answering(settings: config.Settings, **answers: object) -> Iterator[Strange]:
    """Run a fake relay and set SMTP_URL to it."""
    relay = Strange(**answers)  # type: ignore[arg-type]
    with serving(relay.serve) as relay.port:
        config.install(dataclasses.replace(settings, smtp_url=f"smtp://127.0.0.1:{relay.port}?connections=1"))
        yield relay


@dataclass
class Shelf:
    """A mail source with given mails that records all calls."""

    mails: deque[OutgoingMail]
    going: bool = True
    outcomes: dict[str, DeliveryResult] = field(default_factory=dict)
    dots: list[str] = field(default_factory=list)
    returned: list[str] = field(default_factory=list)

    def take(self) -> Job | None:
        return Job(self.mails.popleft()) if self.mails else None

    def may_go(self, _job: Job) -> bool:
        return self.going

    def before_dot(self, job: Job) -> None:
        self.dots.append(job.mail.recipient)

    def settle(self, job: Job, outcome: DeliveryResult) -> None:
        assert job.mail.recipient not in self.outcomes, "settled twice"
        self.outcomes[job.mail.recipient] = outcome

    def give_back(self, job: Job) -> None:
        self.returned.append(job.mail.recipient)

    @property
    def fates(self) -> list[str]:
        return [outcome.status.value for outcome in self.outcomes.values()]


def mail(recipient: str, content: bytes = b"Subject: x\r\n\r\nbody\r\n") -> OutgoingMail:
    return OutgoingMail("b+x@example.org", recipient, content, not recipient.isascii())


def mails(count: int) -> list[OutgoingMail]:
    return [mail(f"n{number}@example.net") for number in range(count)]


def posted(mails: Sequence[OutgoingMail], relay: RelayAddress | None = None, *, going: bool = True) -> Shelf:
    """Send ``mails`` over one connection and return the mail source with the results. Raises RelayUnavailable."""
    shelf = Shelf(deque(mails), going)
    asyncio.run(_post(shelf, relay or relay_address()))
    return shelf


async def _post(shelf: Shelf, relay: RelayAddress) -> None:
    wire, offers = await greet(relay)
    ended = asyncio.Event()
    connection = Connection(wire, offers, relay, shelf, lambda _connection, _why: ended.set())
    connection.go()
    while not connection.idle and not ended.is_set():
        await asyncio.sleep(0.001)
    connection.close()
    await connection.gone(0.5)
