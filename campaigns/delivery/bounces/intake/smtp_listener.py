"""SMTP and LMTP listener on loopback, to which the mail server delivers mail for the bounce domain.

Run as ``python -m campaigns.delivery.bounces.intake.smtp_listener --port 2526``. A mail is acknowledged once it is
synced to disk.
"""

import argparse
import asyncio
import signal
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from shutil import disk_usage
from threading import Thread
from typing import Any

import structlog
from aiosmtpd.smtp import SMTP, Envelope, Session, syntax

from campaigns.delivery.bounces.intake import maildir
from campaigns.delivery.bounces.models import FeedbackSource

log = structlog.get_logger()
_MOST_RECIPIENTS = 20
_LEAST_SPACE = 100 * 1024 * 1024
"""Minimum free bytes on the disk after a mail is stored."""


class _LmtpServer(SMTP):
    """Accepts EHLO, HELO and LHLO; after LHLO it replies to the final dot once per recipient (RFC 2033)."""

    @syntax("LHLO hostname")
    async def smtp_LHLO(self, hostname: str) -> None:
        await self.smtp_EHLO(hostname)
        assert self.session is not None
        self.session.lmtp = True  # type: ignore[attr-defined]


class BounceSink:
    """Accepts every mail within the limits; the parser decides what it is."""

    async def handle_RCPT(self, _server: SMTP, _session: Session, envelope: Envelope, address: str, _o: Any) -> str:
        if len(envelope.rcpt_tos) >= _MOST_RECIPIENTS:
            return "452 4.5.3 Too many recipients"
        envelope.rcpt_tos.append(address)
        return "250 2.1.5 Ok"

    async def handle_DATA(self, _server: SMTP, session: Session, envelope: Envelope) -> str:
        answer = await asyncio.get_running_loop().run_in_executor(None, _kept, envelope)
        times = len(envelope.rcpt_tos) if getattr(session, "lmtp", False) else 1
        return "\r\n".join([answer] * times)


def _kept(envelope: Envelope) -> str:
    """Store the mail with its envelope recipients, which hold the token of the send; return the SMTP reply."""
    content = envelope.content or b""
    raw = content if isinstance(content, bytes) else content.encode()
    head = "".join(f"Delivered-To: {address}\r\n" for address in envelope.rcpt_tos)
    try:
        if disk_usage(maildir.folder().parent).free < _LEAST_SPACE + len(raw):
            return "452 4.3.1 No space left"
        maildir.keep(head.encode("utf-8", "surrogateescape") + raw, FeedbackSource.MTA)
    except OSError as error:
        log.error("a bounce could not be kept", error=str(error))
        return "451 4.3.0 Try again later"
    return "250 2.0.0 Ok: kept"


def _server() -> SMTP:
    return _LmtpServer(
        BounceSink(),
        data_size_limit=maildir.LARGEST,
        enable_SMTPUTF8=True,
        hostname="bounces.localhost",
        ident="bounces",
    )


async def _listening(port: int) -> asyncio.Server:
    return await asyncio.get_running_loop().create_server(_server, "127.0.0.1", port, backlog=128)


async def _until_signal(port: int) -> None:
    stop = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    async with await _listening(port):
        await stop.wait()


@contextmanager
def listening(port: int = 0) -> Iterator[int]:
    """Run a listener in a thread of this process, for tests; yields its port."""
    running: Future[tuple[int, Callable[[], object]]] = Future()

    async def serve() -> None:
        stop, loop = asyncio.Event(), asyncio.get_running_loop()
        async with await _listening(port) as server:
            running.set_result((server.sockets[0].getsockname()[1], lambda: loop.call_soon_threadsafe(stop.set)))
            await stop.wait()

    thread = Thread(target=asyncio.run, args=(serve(),), daemon=True)
    thread.start()
    chosen, stop = running.result(10)
    try:
        yield chosen
    finally:
        stop()
        thread.join(10)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        prog="python -m campaigns.delivery.bounces.intake.smtp_listener", description=__doc__
    )
    parser.add_argument("--port", type=int, required=True)
    asyncio.run(_until_signal(parser.parse_args().port))
