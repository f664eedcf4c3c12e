"""SMTP client compared with smtplib: ``python -m tests.benchmarks.smtp_client [mails]``.

CPU seconds per 1,000 mails of 33 KB into a sink in another process, interleaved, medians of five; then mails per second
on one connection at a round-trip time of 20 ms. Limits: 0.06 s of CPU, and 3.5 times the rate without pipelining.
"""

import asyncio
import os
import smtplib
import statistics
import sys
import tempfile
import time
from collections import deque
from collections.abc import Callable
from multiprocessing import Process, Queue

os.environ["KAMPANIA_VAR"] = tempfile.mkdtemp(prefix="kampania-bench-")

from campaigns.delivery.mime.envelope import OutgoingMail
from campaigns.delivery.smtp.address import RelayAddress, TlsMode
from campaigns.delivery.smtp.connection import Connection
from campaigns.delivery.smtp.handshake import SmtpCapabilities, greet
from tests.delivery.fake_relay import Shelf

CONTENT = b"Subject: bench\r\n\r\n" + (b"x" * 73 + b"\r\n") * 440
ROUNDS = 5
CPU_LIMIT, RATIO_LIMIT = 0.06, 3.5
_ANSWERS = {b"EHLO": b"250-sink\r\n250-PIPELINING\r\n250 8BITMIME\r\n", b"DATA": b"354 go\r\n", b"QUIT": b"221 bye\r\n"}


class Sink(asyncio.Protocol):
    """Sink that accepts every mail with minimal parsing; ``delay`` in seconds each way."""

    def __init__(self, delay: float) -> None:
        self._delay = delay
        self._content = False
        self._rest = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self._later(lambda: transport.write(b"220 sink\r\n"))

    def data_received(self, data: bytes) -> None:
        self._later(lambda: self._hear(data))

    def _later(self, act: Callable[[], None]) -> None:
        if self._delay:
            asyncio.get_running_loop().call_later(self._delay, act)
        else:
            act()

    def _hear(self, data: bytes) -> None:
        data, answers = self._rest + data, []
        while data:
            if self._content:
                end = data.find(b"\r\n.\r\n")
                if end < 0:
                    data = data[-4:]
                    break
                data, self._content = data[end + 5 :], False
                answers.append(b"250 ok\r\n")
                continue
            line, found, rest = data.partition(b"\r\n")
            if not found:
                break
            data = rest
            answers.append(_ANSWERS.get(line[:4].upper(), b"250 ok\r\n"))
            self._content = line[:4] in (b"DATA", b"data")
        self._rest = data
        if answers:
            self._later(lambda: self._transport.write(b"".join(answers)))


def serve(delay: float, ports: "Queue[int]") -> None:
    async def forever() -> None:
        server = await asyncio.get_running_loop().create_server(lambda: Sink(delay), "127.0.0.1", 0)
        ports.put(server.sockets[0].getsockname()[1])
        await server.serve_forever()

    asyncio.run(forever())


def mails(count: int) -> deque[OutgoingMail]:
    return deque(
        OutgoingMail("b@example.org", f"n{number}@example.net", CONTENT, False, dotless=True) for number in range(count)
    )


async def ours(port: int, count: int, connections: int, *, grouped: bool = True) -> None:
    shelf = Shelf(mails(count))
    relay = RelayAddress("127.0.0.1", port, tls=TlsMode.OFF)
    opened = []
    for _ in range(connections):
        wire, offers = await greet(relay)
        offered = offers if grouped else SmtpCapabilities({})
        opened.append(Connection(wire, offered, relay, shelf, lambda _connection, why: sys.exit(why)))
    for each in opened:
        each.go()
    while not all(each.idle for each in opened):
        await asyncio.sleep(0.002)
    assert set(shelf.fates) == {"sent"}
    assert len(shelf.outcomes) == count
    for each in opened:
        each.close()


def theirs(port: int, count: int) -> None:
    with smtplib.SMTP("127.0.0.1", port) as client:
        for mail in mails(count):
            client.sendmail(mail.sender, mail.recipient, mail.content)


def cost(act: Callable[[], object], count: int) -> tuple[float, float]:
    """Return (CPU seconds per 1,000 mails, mails per second)."""
    began, cpu = time.perf_counter(), time.process_time()
    act()
    return (time.process_time() - cpu) * 1000 / count, count / (time.perf_counter() - began)


def main(count: int) -> int:
    ports: Queue[int] = Queue()
    sinks = [Process(target=serve, args=(delay, ports), daemon=True) for delay in (0.0, 0.01)]
    near, far = [(sink.start(), ports.get())[1] for sink in sinks]  # type: ignore[func-returns-value]
    found: dict[str, list[tuple[float, float]]] = {"smtplib": [], "lock-step": [], "pipelined": []}
    for _ in range(ROUNDS):
        found["smtplib"].append(cost(lambda: theirs(near, count // 4), count // 4))
        found["lock-step"].append(cost(lambda: asyncio.run(ours(near, count, 1, grouped=False)), count))
        found["pipelined"].append(cost(lambda: asyncio.run(ours(near, count, 4)), count))
    medians = {name: tuple(map(statistics.median, zip(*runs, strict=True))) for name, runs in found.items()}
    for name, (cpu, rate) in medians.items():
        sys.stdout.write(f"{name:<12}{cpu:>8.3f} s CPU per 1,000 mails {rate:>9,.0f}/s\n")
    slow = cost(lambda: asyncio.run(ours(far, 40, 1, grouped=False)), 40)[1]
    fast = cost(lambda: asyncio.run(ours(far, 160, 1)), 160)[1]
    library = cost(lambda: theirs(far, 40), 40)[1]
    sys.stdout.write(f"at 20 ms: smtplib {library:.1f}/s, lock-step {slow:.1f}/s, pipelined {fast:.1f}/s\n")
    sys.stdout.write(f"{fast / slow:.2f} × lock-step, {fast / library:.2f} × smtplib\n")
    for sink in sinks:
        sink.terminate()
    return int(medians["pipelined"][0] > CPU_LIMIT or fast / slow < RATIO_LIMIT)


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1]) if len(sys.argv) > 1 else 4_000))
