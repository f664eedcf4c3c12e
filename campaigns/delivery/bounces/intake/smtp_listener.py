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
_MAX_RECIPIENTS = 20
_MIN_FREE_BYTES = 100 * 1024 * 1024
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
        if len(envelope.rcpt_tos) >= _MAX_RECIPIENTS:
            return "452 4.5.3 Too many recipients"
        envelope.rcpt_tos.append(address)
        return "250 2.1.5 Ok"

    async def handle_DATA(self, _server: SMTP, session: Session, envelope: Envelope) -> str:
        reply = await asyncio.get_running_loop().run_in_executor(None, _store_mail, envelope)
        replies = len(envelope.rcpt_tos) if getattr(session, "lmtp", False) else 1
        return "\r\n".join([reply] * replies)


def _store_mail(envelope: Envelope) -> str:
    """Store the mail with its envelope recipients, which hold the token of the send; return the SMTP reply."""
    content = envelope.content or b""
    raw = content if isinstance(content, bytes) else content.encode()
    envelope_fields = "".join(f"Delivered-To: {address}\r\n" for address in envelope.rcpt_tos)
    try:
        if disk_usage(maildir.folder().parent).free < _MIN_FREE_BYTES + len(raw):
            return "452 4.3.1 No space left"
        maildir.store_mail(envelope_fields.encode("utf-8", "surrogateescape") + raw, FeedbackSource.MTA)
    except OSError as error:
        log.error("bounce.store_failed", error=str(error))
        return "451 4.3.0 Try again later"
    return "250 2.0.0 Ok: kept"


def _server() -> SMTP:
    return _LmtpServer(
        BounceSink(),
        data_size_limit=maildir.MAX_MAIL_BYTES,
        enable_SMTPUTF8=True,
        hostname="bounces.localhost",
        ident="bounces",
    )


async def _create_listener(port: int) -> asyncio.Server:
    return await asyncio.get_running_loop().create_server(_server, "127.0.0.1", port, backlog=128)


async def _until_signal(port: int) -> None:
    stop = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    async with await _create_listener(port):
        await stop.wait()


@contextmanager
def running_listener(port: int = 0) -> Iterator[int]:
    """Run a listener in a thread of this process, for tests; yields its port."""
    started: Future[tuple[int, Callable[[], object]]] = Future()

    async def serve() -> None:
        stop, loop = asyncio.Event(), asyncio.get_running_loop()
        async with await _create_listener(port) as server:
            started.set_result((server.sockets[0].getsockname()[1], lambda: loop.call_soon_threadsafe(stop.set)))
            await stop.wait()

    thread = Thread(target=asyncio.run, args=(serve(),), daemon=True)
    thread.start()
    actual_port, stop = started.result(10)
    try:
        yield actual_port
    finally:
        stop()
        thread.join(10)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        prog="python -m campaigns.delivery.bounces.intake.smtp_listener", description=__doc__
    )
    parser.add_argument("--port", type=int, required=True)
    asyncio.run(_until_signal(parser.parse_args().port))
