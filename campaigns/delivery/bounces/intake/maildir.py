"""Maildir-like folder of acknowledged mails: each file is complete and synced, and stays until its row is committed.

Storing a mail needs no database, so bounces are accepted while the database is down.
"""

import fcntl
import os
import secrets
import time
from collections.abc import Iterator
from contextlib import contextmanager
from hashlib import blake2b
from pathlib import Path

from campaigns import clock, config, db
from campaigns.delivery.bounces.intake import queue
from campaigns.delivery.bounces.models import FeedbackSource

MAX_MAIL_BYTES = 10 * 1024 * 1024
"""Maximum bytes of one mail."""
_BATCH_SIZE = 200


def folder() -> Path:
    return config.settings().var / "bounces"


def store_mail(raw: bytes, source: FeedbackSource) -> None:
    """Write and fsync a mail: after this returns, no crash of the process or the machine loses it. Raises OSError."""
    root = folder()
    for name in ("tmp", "new"):
        (root / name).mkdir(mode=0o700, parents=True, exist_ok=True)
    name = f"{time.time_ns()}.{os.getpid()}.{secrets.token_hex(8)}.{source.value}"
    temporary = root / "tmp" / name
    with temporary.open("xb") as file:
        file.write(raw)
        file.flush()
        os.fsync(file.fileno())
    temporary.rename(root / "new" / name)
    _fsync_folder(root / "new")


def _fsync_folder(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def move_to_queue() -> int:
    """Move files into rows, each file deleted after its row is committed; return their number. One run per host."""
    if not (folder() / "new").is_dir():
        return 0
    with _exclusive_lock() as acquired:
        if not acquired:
            return 0
        paths = sorted((folder() / "new").iterdir())[:_BATCH_SIZE]
        if paths:
            with db.transaction() as session:
                for path in paths:
                    source = (
                        FeedbackSource(path.suffix[1:])
                        if path.suffix[1:] in set(FeedbackSource)
                        else FeedbackSource.MTA
                    )
                    raw = path.read_bytes()
                    queue.enqueue(session, source, mail_digest(raw), raw, clock.now())
            for path in paths:
                path.unlink(missing_ok=True)
    return len(paths)


def mail_digest(raw: bytes) -> str:
    return blake2b(raw, digest_size=24).hexdigest()


def count_waiting() -> int:
    """Return the number of this host's mails that are not rows yet."""
    new = folder() / "new"
    return sum(1 for _ in new.iterdir()) if new.is_dir() else 0


@contextmanager
def _exclusive_lock() -> Iterator[bool]:
    with (folder() / "lock").open("a") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
            return
        yield True
