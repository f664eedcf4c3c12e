"""The mail catcher: an SMTP server on loopback that delivers nothing and keeps everything.

Its mails live in a file of their own, ``var/catcher.db``, so that no test or demo mail is ever
mixed with the organisation's rows.
"""

import argparse
import asyncio
import re
import signal
import sqlite3
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass
from email import policy
from email.parser import BytesHeaderParser
from pathlib import Path
from threading import Thread
from typing import Any

from aiosmtpd.smtp import SMTP, Envelope, Session

from campaigns import config

_SCHEMA = """
CREATE TABLE IF NOT EXISTS mails (
    id INTEGER PRIMARY KEY,
    at REAL NOT NULL,
    sender TEXT NOT NULL,
    recipient TEXT NOT NULL,
    subject TEXT NOT NULL,
    raw BLOB NOT NULL
);
CREATE INDEX IF NOT EXISTS mails_recipient ON mails (recipient, id);
"""
_HEADERS = BytesHeaderParser(policy=policy.default)
_LARGEST = 32 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Caught:
    """One mail as it lies in the file; ``at`` in seconds since 1970."""

    id: int
    at: float
    sender: str
    recipient: str
    subject: str
    raw: bytes = b""


class Box:
    """The file of caught mails."""

    def __init__(self, path: Path | None = None) -> None:
        self.path = path or config.settings().var / "catcher.db"

    @contextmanager
    def open(self) -> Iterator[sqlite3.Connection]:
        """A connection in autocommit: an answered mail is on file, also after ``kill -9``."""
        connection = sqlite3.connect(self.path, isolation_level=None, timeout=10, check_same_thread=False)
        try:
            connection.executescript(f"PRAGMA journal_mode=WAL; PRAGMA synchronous=OFF; {_SCHEMA}")
            yield connection
        finally:
            connection.close()

    def mails(
        self, *, address: str = "", before: int | None = None, after: int | None = None, limit: int = 50
    ) -> list[Caught]:
        """Newest first, without their raw bytes: those older than ``before``, or the oldest that are
        newer than ``after``; ``address`` is any part of a recipient's."""
        where, values = ["1"], []
        if address:
            where.append("recipient LIKE ? ESCAPE '\\'")
            values.append("%" + re.sub(r"([%_\\])", r"\\\1", address) + "%")
        if before is not None:
            where.append("id < ?")
            values.append(str(before))
        if after is not None:
            where.append("id > ?")
            values.append(str(after))
        order = "id ASC" if after is not None else "id DESC"
        columns = "id, at, sender, recipient, subject"
        query = f"SELECT {columns} FROM mails WHERE {' AND '.join(where)} ORDER BY {order} LIMIT ?"  # noqa: S608
        with self.open() as connection:
            rows = [Caught(*row) for row in connection.execute(query, [*values, limit])]
        return rows[::-1] if after is not None else rows

    def mail(self, number: int) -> Caught | None:
        with self.open() as connection:
            row = connection.execute(
                "SELECT id, at, sender, recipient, subject, raw FROM mails WHERE id = ?", (number,)
            ).fetchone()
        return Caught(*row) if row else None

    def count(self) -> int:
        with self.open() as connection:
            return int(connection.execute("SELECT count(*) FROM mails").fetchone()[0])


Faults = dict[str, list[str]]
"""For tests: what goes wrong for an address, one entry used up per attempt: ``"550 5.1.1 …"`` answers
RCPT, ``"data 451 …"`` answers the last dot, ``"drop before"`` and ``"drop after"`` break the connection
before or after the mail was taken, ``""`` lets one pass."""


class Catcher:
    """Takes every mail, apart from ``faults``."""

    def __init__(self, connection: sqlite3.Connection, faults: Faults | None = None) -> None:
        self._connection = connection
        self._faults = {} if faults is None else faults

    async def handle_EHLO(
        self, _server: SMTP, session: Session, _envelope: Envelope, hostname: str, answers: list[str]
    ) -> list[str]:
        session.host_name = hostname
        return [*answers[:-1], "250-PIPELINING", *answers[-1:]]  # Commands are read one by one: it holds.

    async def handle_RCPT(self, _server: SMTP, _session: Session, envelope: Envelope, address: str, _o: Any) -> str:
        fault = self._next(address)
        if re.match(r"\d", fault):
            return fault
        envelope.rcpt_tos.append(address)
        envelope.fault = fault  # type: ignore[attr-defined]
        return "250 2.1.5 Ok"

    async def handle_DATA(self, server: SMTP, _session: Session, envelope: Envelope) -> str:
        fault = getattr(envelope, "fault", "")
        if fault.startswith("data "):
            return fault.removeprefix("data ")
        number = self._keep(envelope.mail_from or "", envelope.rcpt_tos, envelope.content or b"")
        if fault == "drop after":
            _break(server)
        return f"250 2.0.0 Ok: caught as {number}"

    def _next(self, address: str) -> str:
        faults = self._faults.get(address)
        return faults.pop(0) if faults else ""

    def _keep(self, sender: str, recipients: Sequence[str], content: bytes | str) -> int | None:
        raw = content if isinstance(content, bytes) else content.encode()
        subject = str(_HEADERS.parsebytes(raw.partition(b"\r\n\r\n")[0] + b"\r\n\r\n").get("Subject", ""))
        row = (time.time(), sender, ", ".join(recipients), subject[:500], raw)
        query = "INSERT INTO mails (at, sender, recipient, subject, raw) VALUES (?, ?, ?, ?, ?)"
        return self._connection.execute(query, row).lastrowid


def _break(server: SMTP) -> None:
    assert isinstance(server.transport, asyncio.WriteTransport)
    server.transport.abort()


class _Server(SMTP):
    """Breaks the connection in the middle of a mail when a fault says so."""

    async def smtp_DATA(self, arg: str) -> None:
        if getattr(self.envelope, "fault", "") == "drop before":
            _break(self)
            return
        await super().smtp_DATA(arg)


def server_for(catcher: Catcher) -> SMTP:
    """The SMTP side of one connection."""
    return _Server(
        catcher, data_size_limit=_LARGEST, enable_SMTPUTF8=True, hostname="catcher.localhost", ident="catcher"
    )


def run(port: int) -> None:
    """Catch mail on 127.0.0.1 until SIGINT or SIGTERM."""
    with Box().open() as connection:
        asyncio.run(_until_signal(Catcher(connection), port))


async def _until_signal(catcher: Catcher, port: int) -> None:
    stop = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    async with await _listening(catcher, port):
        await stop.wait()


async def _listening(catcher: Catcher, port: int) -> asyncio.Server:
    loop = asyncio.get_running_loop()
    return await loop.create_server(lambda: server_for(catcher), "127.0.0.1", port, backlog=128)


@contextmanager
def catching(port: int = 0, box: Box | None = None, faults: Faults | None = None) -> Iterator[int]:
    """A catcher in a thread of this process, for tests; yields its port."""
    running: Future[tuple[int, Callable[[], object]]] = Future()

    async def serve(catcher: Catcher) -> None:
        stop, loop = asyncio.Event(), asyncio.get_running_loop()
        async with await _listening(catcher, port) as server:
            chosen = server.sockets[0].getsockname()[1]
            running.set_result((chosen, lambda: loop.call_soon_threadsafe(stop.set)))
            await stop.wait()

    with (box or Box()).open() as connection:
        thread = Thread(target=asyncio.run, args=(serve(Catcher(connection, faults)),), daemon=True)
        thread.start()
        chosen, stop = running.result(10)
        try:
            yield chosen
        finally:
            stop()
            thread.join(10)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m campaigns.demo.catcher", description=__doc__)
    parser.add_argument("--port", type=int, default=2525)
    run(parser.parse_args().port)
