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
from campaigns.delivery.smtp.handshake import SmtpCapabilities, open_connection
from tests.delivery.fake_relay import MailQueue

CONTENT = b"Subject: bench\r\n\r\n" + (b"x" * 73 + b"\r\n") * 440
ROUNDS = 5
CPU_LIMIT, RATIO_LIMIT = 0.06, 3.5
_REPLIES = {b"EHLO": b"250-sink\r\n250-PIPELINING\r\n250 8BITMIME\r\n", b"DATA": b"354 go\r\n", b"QUIT": b"221 bye\r\n"}


class Sink(asyncio.Protocol):
    """Sink that accepts every mail with minimal parsing; ``delay`` in seconds each way."""

    def __init__(self, delay: float) -> None:
        self._delay = delay
        self._in_data = False
        self._buffer = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self._after_delay(lambda: transport.write(b"220 sink\r\n"))

    def data_received(self, data: bytes) -> None:
        self._after_delay(lambda: self._handle(data))

    def _after_delay(self, action: Callable[[], None]) -> None:
        if self._delay:
            asyncio.get_running_loop().call_later(self._delay, action)
        else:
            action()

    def _handle(self, data: bytes) -> None:
        data, replies = self._buffer + data, []
        while data:
            if self._in_data:
                end = data.find(b"\r\n.\r\n")
                if end < 0:
                    data = data[-4:]
                    break
                data, self._in_data = data[end + 5 :], False
                replies.append(b"250 ok\r\n")
                continue
            line, found, rest = data.partition(b"\r\n")
            if not found:
                break
            data = rest
            replies.append(_REPLIES.get(line[:4].upper(), b"250 ok\r\n"))
            self._in_data = line[:4] in (b"DATA", b"data")
        self._buffer = data
        if replies:
            self._after_delay(lambda: self._transport.write(b"".join(replies)))


def serve(delay: float, ports: "Queue[int]") -> None:
    async def serve_forever() -> None:
        server = await asyncio.get_running_loop().create_server(lambda: Sink(delay), "127.0.0.1", 0)
        ports.put(server.sockets[0].getsockname()[1])
        await server.serve_forever()

    asyncio.run(serve_forever())


def make_mails(count: int) -> deque[OutgoingMail]:
    return deque(
        OutgoingMail("b@example.org", f"n{number}@example.net", CONTENT, False, has_no_leading_dots=True)
        for number in range(count)
    )


async def send_with_client(port: int, count: int, connections: int, *, pipelining: bool = True) -> None:
    feed = MailQueue(make_mails(count))
    relay = RelayAddress("127.0.0.1", port, tls=TlsMode.OFF)
    opened_connections = []
    for _ in range(connections):
        protocol, capabilities = await open_connection(relay)
        used_capabilities = capabilities if pipelining else SmtpCapabilities({})
        opened_connections.append(
            Connection(protocol, used_capabilities, relay, feed, lambda _connection, why: sys.exit(why))
        )
    for each in opened_connections:
        each.send_next()
    while not all(each.is_idle for each in opened_connections):
        await asyncio.sleep(0.002)
    assert set(feed.statuses) == {"sent"}
    assert len(feed.outcomes) == count
    for each in opened_connections:
        each.close()


def send_with_smtplib(port: int, count: int) -> None:
    with smtplib.SMTP("127.0.0.1", port) as client:
        for mail in make_mails(count):
            client.sendmail(mail.sender, mail.recipient, mail.content)


def measure_cost(action: Callable[[], object], count: int) -> tuple[float, float]:
    """Return (CPU seconds per 1,000 mails, mails per second)."""
    began, cpu = time.perf_counter(), time.process_time()
    action()
    return (time.process_time() - cpu) * 1000 / count, count / (time.perf_counter() - began)


def main(count: int) -> int:
    ports: Queue[int] = Queue()
    sinks = [Process(target=serve, args=(delay, ports), daemon=True) for delay in (0.0, 0.01)]
    near_port, distant_port = [(sink.start(), ports.get())[1] for sink in sinks]  # type: ignore[func-returns-value]
    costs: dict[str, list[tuple[float, float]]] = {"smtplib": [], "lock-step": [], "pipelined": []}
    for _ in range(ROUNDS):
        costs["smtplib"].append(measure_cost(lambda: send_with_smtplib(near_port, count // 4), count // 4))
        costs["lock-step"].append(
            measure_cost(lambda: asyncio.run(send_with_client(near_port, count, 1, pipelining=False)), count)
        )
        costs["pipelined"].append(measure_cost(lambda: asyncio.run(send_with_client(near_port, count, 4)), count))
    medians = {name: tuple(map(statistics.median, zip(*runs, strict=True))) for name, runs in costs.items()}
    for name, (cpu, rate) in medians.items():
        sys.stdout.write(f"{name:<12}{cpu:>8.3f} s CPU per 1,000 mails {rate:>9,.0f}/s\n")
    slow = measure_cost(lambda: asyncio.run(send_with_client(distant_port, 40, 1, pipelining=False)), 40)[1]
    fast = measure_cost(lambda: asyncio.run(send_with_client(distant_port, 160, 1)), 160)[1]
    library = measure_cost(lambda: send_with_smtplib(distant_port, 40), 40)[1]
    sys.stdout.write(f"at 20 ms: smtplib {library:.1f}/s, lock-step {slow:.1f}/s, pipelined {fast:.1f}/s\n")
    sys.stdout.write(f"{fast / slow:.2f} × lock-step, {fast / library:.2f} × smtplib\n")
    for sink in sinks:
        sink.terminate()
    return int(medians["pipelined"][0] > CPU_LIMIT or fast / slow < RATIO_LIMIT)


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1]) if len(sys.argv) > 1 else 4_000))
