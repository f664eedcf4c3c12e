"""Mail catcher: an SMTP server on loopback that stores every mail and delivers none.

The mails are stored in a SQLite database of their own, ``var/catcher.db``, so that test and demo mails never mix
with the organisation's data.
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
from pathlib import Path
from threading import Thread

from campaigns import config
from campaigns.mail_catcher.smtp_server import Faults, SmtpServer, decode_subject

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


@dataclass(frozen=True, slots=True)
class StoredMail:
    """One stored mail; ``received_at`` in seconds since 1970."""

    id: int
    received_at: float
    sender: str
    recipient: str
    subject: str
    raw: bytes = b""


class MailStore:
    """The SQLite database of caught mails."""

    def __init__(self, path: Path | None = None) -> None:
        self.path = path or config.settings().var / "catcher.db"

    @contextmanager
    def open(self) -> Iterator[sqlite3.Connection]:
        """Yield an autocommit connection: an acknowledged mail survives ``kill -9`` of the process."""
        connection = sqlite3.connect(self.path, isolation_level=None, timeout=10, check_same_thread=False)
        try:
            connection.executescript(f"PRAGMA journal_mode=WAL; PRAGMA synchronous=OFF; {_SCHEMA}")
            yield connection
        finally:
            connection.close()

    def mails(
        self, *, address: str = "", before: int | None = None, after: int | None = None, limit: int = 50
    ) -> list[StoredMail]:
        """Return mails, newest first, without their raw bytes.

        ``before`` selects the newest with a smaller id, ``after`` the oldest with a larger id; ``address`` matches any
        part of the recipient.
        """
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
            rows = [StoredMail(*row) for row in connection.execute(query, [*values, limit])]
        return rows[::-1] if after is not None else rows

    def mail(self, mail_id: int) -> StoredMail | None:
        with self.open() as connection:
            row = connection.execute(
                "SELECT id, at, sender, recipient, subject, raw FROM mails WHERE id = ?", (mail_id,)
            ).fetchone()
        return StoredMail(*row) if row else None

    def count(self) -> int:
        with self.open() as connection:
            return int(connection.execute("SELECT count(*) FROM mails").fetchone()[0])


def run(port: int) -> None:
    """Run the catcher on 127.0.0.1 until SIGINT or SIGTERM."""
    with MailStore().open() as connection:
        asyncio.run(_until_signal(_server_factory(connection, {}), port))


def _server_factory(connection: sqlite3.Connection, faults: Faults) -> Callable[[], SmtpServer]:
    def store_mail(sender: str, recipients: Sequence[str], raw: bytes) -> int | None:
        row = (time.time(), sender, ", ".join(recipients), decode_subject(raw)[:500], raw)
        query = "INSERT INTO mails (at, sender, recipient, subject, raw) VALUES (?, ?, ?, ?, ?)"
        return connection.execute(query, row).lastrowid

    return lambda: SmtpServer(store_mail, faults)


async def _until_signal(server_factory: Callable[[], SmtpServer], port: int) -> None:
    stop = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    async with await _create_server(server_factory, port):
        await stop.wait()


async def _create_server(server_factory: Callable[[], SmtpServer], port: int) -> asyncio.Server:
    return await asyncio.get_running_loop().create_server(server_factory, "127.0.0.1", port, backlog=128)


@contextmanager
def running_catcher(port: int = 0, store: MailStore | None = None, faults: Faults | None = None) -> Iterator[int]:
    """Run a catcher in a thread of this process, for tests; yields its port."""
    started: Future[tuple[int, Callable[[], object]]] = Future()

    async def serve(reception: Callable[[], SmtpServer]) -> None:
        stop, loop = asyncio.Event(), asyncio.get_running_loop()
        async with await _create_server(reception, port) as server:
            chosen = server.sockets[0].getsockname()[1]
            started.set_result((chosen, lambda: loop.call_soon_threadsafe(stop.set)))
            await stop.wait()

    with (store or MailStore()).open() as connection:
        thread = Thread(
            target=asyncio.run,
            args=(serve(_server_factory(connection, {} if faults is None else faults)),),
            daemon=True,
        )
        thread.start()
        actual_port, stop = started.result(10)
        try:
            yield actual_port
        finally:
            stop()
            thread.join(10)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m campaigns.mail_catcher.store", description=__doc__)
    parser.add_argument("--port", type=int, default=2525)
    run(parser.parse_args().port)
