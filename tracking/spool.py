"""Append-only files: an answered hit survives kill -9.

Every process writes its own file set, named by a random id, with one ``write()`` per hit: the page
cache outlives the process, and a thread calls fdatasync a few times a second. A file's name carries
the offset at which it begins, so (spool, offset) names a hit for ever.

A disk that is full or read-only never stops an answer: what is lost is counted, logged, and written
down as a record of its own as soon as the disk takes it.
"""

import fcntl
import os
import secrets
import threading
import time
from pathlib import Path

import structlog

from campaigns import clock, config
from tracking.records import Hit, pack, pack_loss

log = structlog.get_logger(__name__)

SUFFIX = ".spool"
SYNC_SECONDS = 0.2
RETRY_SECONDS = 1.0
ROTATE_BYTES = 64 << 20
ROTATE_SECONDS = 3600.0  # Collected files must go within 24 hours, so an idle process lets go of its file.


def file_name(name: str, start: int) -> str:
    return f"{name}-{start:016x}{SUFFIX}"


class Spool:
    """The file set of one process; threads share it. The open file is flocked, so that a collector
    can tell a living writer from a dead one."""

    def __init__(self, directory: Path, rotate_bytes: int = ROTATE_BYTES, rotate_seconds: float = ROTATE_SECONDS):
        self.name = secrets.token_hex(16)
        self.lost = 0
        """Hits that could not be kept since this process began."""
        self._directory = directory
        self._rotate_bytes, self._rotate_seconds = rotate_bytes, rotate_seconds
        self._lock = threading.Lock()
        self._fd = -1
        self._end = 0  # Offset behind the last record, over all files.
        self._start = 0  # Offset at which the open file begins.
        self._rotate_at = 0
        self._opened = 0.0
        self._retry_at = 0.0
        self.untold = 0
        """Those of them which no record in the spool tells of yet."""
        self._dirty = False
        self._syncing = False

    def append(self, hit: Hit) -> bool:
        """Keep a hit. Never raises; False when the disk refused it."""
        return self.keep(pack(hit))

    def keep(self, record: bytes) -> bool:
        """Keep a packed hit, as :meth:`append` does."""
        with self._lock:
            try:
                if self._fd < 0:
                    self._open()
                if self.untold:
                    self._tell()
                self._put(record)
            except OSError as error:
                self._refused(error)
                return False
            if self._end >= self._rotate_at:
                self._close()
        if not self._syncing:
            self._start_syncing()
        return True

    def sync(self) -> None:
        """Bring what was written to the disk, and let go of a file that has become old."""
        with self._lock:
            if self._fd < 0 or not self._dirty:
                fd = -1
            else:
                fd, self._dirty = os.dup(self._fd), False
            if self._fd >= 0 and time.monotonic() - self._opened > self._rotate_seconds and self._end > self._start:
                self._close()
        if fd >= 0:
            try:
                os.fdatasync(fd)
            finally:
                os.close(fd)

    def close(self) -> None:
        with self._lock:
            self._close()

    def _open(self) -> None:
        if time.monotonic() < self._retry_at:
            raise OSError("waiting before the next attempt")
        self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        path = self._directory / file_name(self.name, self._end)
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND | os.O_CLOEXEC, 0o600)
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        self._fd, self._start, self._opened = fd, self._end, time.monotonic()
        self._rotate_at = self._start + self._rotate_bytes

    def _tell(self) -> None:
        """Write down how many hits were lost."""
        told, self.untold = self.untold, 0
        try:
            self._put(pack_loss(told, clock.micros()))
        except OSError:
            self.untold = told
            raise

    def _put(self, record: bytes) -> None:
        written = os.write(self._fd, record)
        if written == len(record):
            self._end += written
            self._dirty = True
            return
        # A full disk takes a part. Taken back, it is as if never written; else the next file
        # begins behind it, and the collector skips it as a torn tail.
        try:
            os.ftruncate(self._fd, self._end - self._start)
        except OSError:
            self._end += written
        raise OSError("the disk is full")

    def _refused(self, error: OSError) -> None:
        if not self.untold:
            log.error("spool.refused", spool=self.name, error=str(error))
        self.lost += 1
        self.untold += 1
        if self._fd >= 0 or time.monotonic() >= self._retry_at:
            self._close()
            self._retry_at = time.monotonic() + RETRY_SECONDS

    def _close(self) -> None:
        """Give the file up; an empty one goes, so that its name is free for the next attempt."""
        fd, self._fd = self._fd, -1
        if fd < 0:
            return
        try:
            if self._end == self._start:
                (self._directory / file_name(self.name, self._start)).unlink(missing_ok=True)
            else:
                os.fdatasync(fd)
        except OSError as error:
            if self._end == self._start:
                self._end += 1  # The name stays taken.
            log.error("spool.sync_failed", spool=self.name, error=str(error))
        os.close(fd)

    def _start_syncing(self) -> None:
        with self._lock:
            if self._syncing:
                return
            self._syncing = True
        threading.Thread(target=self._sync_forever, name="spool-sync", daemon=True).start()

    def _sync_forever(self) -> None:
        while True:
            time.sleep(SYNC_SECONDS)
            try:
                self.sync()
            except OSError as error:
                log.error("spool.sync_failed", spool=self.name, error=str(error))


_made: tuple[config.Settings, Spool] | None = None
_making = threading.Lock()


def spool() -> Spool:
    """The spool of this process and its settings; a forked child gets one of its own."""
    global _made
    settings, made = config.settings(), _made
    if made is None or made[0] is not settings:
        with _making:
            made = _made
            if made is None or made[0] is not settings:
                made = _made = (settings, Spool(settings.spool))
    return made[1]


def _forget() -> None:
    global _made, _making
    _made, _making = None, threading.Lock()


os.register_at_fork(after_in_child=_forget)
