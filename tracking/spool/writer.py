"""Append-only spool files: an answered hit survives kill -9.

Each process writes its own set of files, named by a random id. A hit is copied into preallocated space, its first byte
last: a zero where a record should begin means that nothing is written there yet. Without preallocated space each hit is
one ``write()``. In both cases the bytes are in the page cache, which survives the process; a thread calls fdatasync
every ``SYNC_SECONDS``. A file name carries the offset at which the file begins, so (spool, offset) identifies a hit
permanently.

A full or read-only disk never stops an answer. Lost hits are counted and logged, and a loss record is written as soon
as the disk accepts it.
"""

import fcntl
import mmap
import os
import secrets
import threading
import time
from contextlib import suppress
from pathlib import Path

import structlog

from campaigns import clock, config
from tracking.spool.preallocation import reserved
from tracking.spool.record_codec import MAGIC, Hit, pack, pack_loss

log = structlog.get_logger(__name__)

SUFFIX = ".spool"
SYNC_SECONDS = 0.2
RETRY_SECONDS = 1.0
ROTATE_BYTES = 64 << 20
ROTATE_SECONDS = 3600.0  # Collected files must be deleted within 24 hours, so an idle process closes its file.


def file_name(name: str, start: int) -> str:
    return f"{name}-{start:016x}{SUFFIX}"


class SpoolWriter:
    """The spool files of one process, shared by its threads. The open file is flocked: the collector can tell a live
    writer from a dead one.
    """

    def __init__(self, directory: Path, rotate_bytes: int = ROTATE_BYTES, rotate_seconds: float = ROTATE_SECONDS):
        self.name = secrets.token_hex(16)
        self.lost = 0
        """Hits that could not be stored since the process started."""
        self._directory = directory
        self._rotate_bytes, self._rotate_seconds = rotate_bytes, rotate_seconds
        self._lock = threading.Lock()
        self._fd = -1
        self._start = 0  # Spool offset at which the open file begins.
        self._base = 0  # Spool offset of the mapping; without one, the offset behind the last record.
        self._room: mmap.mmap | None = None
        self._free = 0  # Position of the first free byte in the mapping.
        self._full = 0  # End of the positions in the mapping that need no check for rotation or space.
        self._synced = 0
        self._opened = 0.0
        self._retry_at = 0.0
        self.untold = 0
        """Lost hits that no loss record in the spool covers yet."""
        self._syncing = False

    def append(self, hit: Hit) -> bool:
        """Store a hit. Never raises; False when the disk refused it."""
        return self.keep(pack(hit))

    def keep(self, record: bytes) -> bool:
        """Store a packed hit, as :meth:`append` does."""
        # ``acquire`` instead of ``with``: less interpreter work per hit (CPU per answer: tests/benchmarks/hits.py).
        self._lock.acquire()
        try:
            room, begin = self._room, self._free
            stop = begin + len(record)
            if stop > self._full or room is None:
                return self._keep_thoughtfully(record)
            room[begin + 1 : stop] = record[1:]
            room[begin] = MAGIC
            self._free = stop
            return True
        finally:
            self._lock.release()

    def sync(self) -> None:
        """fdatasync what was written since the last call, and close a file that is older than ``rotate_seconds``."""
        with self._lock:
            if self._fd < 0 or self._synced == self._end:
                fd = -1
            else:
                fd, self._synced = os.dup(self._fd), self._end
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

    @property
    def _end(self) -> int:
        """Spool offset behind the last record."""
        return self._base + self._free

    def _keep_thoughtfully(self, record: bytes) -> bool:
        try:
            if self._fd >= 0 and self._end - self._start >= self._rotate_bytes:
                self._close()
            if self._fd < 0:
                self._open()
            if self.untold:
                self._tell()
            self._put(record)
        except OSError as error:
            self._refused(error)
            return False
        if not self._syncing:
            self._syncing = True
            threading.Thread(target=self._sync_forever, name="spool-sync", daemon=True).start()
        return True

    def _open(self) -> None:
        if time.monotonic() < self._retry_at:
            raise OSError("waiting before the next attempt")
        self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        path = self._directory / file_name(self.name, self._end)
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        self._fd, self._start, self._opened = fd, self._end, time.monotonic()
        self._reserve()

    def _tell(self) -> None:
        """Write a loss record for the hits that were lost."""
        told, self.untold = self.untold, 0
        try:
            self._put(pack_loss(told, clock.micros()))
        except OSError:
            self.untold = told
            raise

    def _put(self, record: bytes) -> None:
        if self._room is not None and self._free + len(record) > len(self._room):
            self._leave_room()
            self._reserve()
        if self._room is None:
            self._write(record)
            return
        stop = self._free + len(record)
        self._room[self._free + 1 : stop] = record[1:]
        self._room[self._free] = MAGIC
        self._free = stop

    def _write(self, record: bytes) -> None:
        written = os.pwrite(self._fd, record, self._end - self._start)
        if written == len(record):
            self._base += written
            return
        # A full disk may accept a part of the record. It is truncated; where that fails, the next file begins behind
        # the part, and the collector skips it as a torn record.
        try:
            os.ftruncate(self._fd, self._end - self._start)
        except OSError:
            self._base += written
        raise OSError("the disk is full")

    def _reserve(self) -> None:
        """Preallocate space in the open file. When that fails, records are written with ``pwrite``."""
        with suppress(OSError):
            self._room, self._free = reserved(self._fd, self._end - self._start)
            self._base -= self._free
            self._full = min(len(self._room), self._start + self._rotate_bytes - self._base)

    def _leave_room(self) -> None:
        self._base, self._free, self._full = self._end, 0, 0
        if self._room is not None:
            self._room.close()
            self._room = None

    def _refused(self, error: OSError) -> None:
        if not self.untold:
            log.error("spool.refused", spool=self.name, error=str(error))
        self.lost += 1
        self.untold += 1
        if self._fd >= 0 or time.monotonic() >= self._retry_at:
            self._close()
            self._retry_at = time.monotonic() + RETRY_SECONDS

    def _close(self) -> None:
        """Close the file, truncated to its records. An empty file is removed, so that its name is free for the next
        attempt.
        """
        fd, self._fd, reserved = self._fd, -1, self._room is not None
        if fd < 0:
            return
        self._leave_room()
        try:
            if self._end == self._start:
                (self._directory / file_name(self.name, self._start)).unlink(missing_ok=True)
            else:
                if reserved:
                    os.ftruncate(fd, self._end - self._start)
                os.fdatasync(fd)
        except OSError as error:
            if self._end == self._start:
                self._base += 1  # The name stays taken, so the next file needs another offset.
            log.error("spool.sync_failed", spool=self.name, error=str(error))
        os.close(fd)

    def _sync_forever(self) -> None:
        while True:
            time.sleep(SYNC_SECONDS)
            try:
                self.sync()
            except OSError as error:
                log.error("spool.sync_failed", spool=self.name, error=str(error))


_made: tuple[config.Settings, SpoolWriter] | None = None
_making = threading.Lock()


def spool() -> SpoolWriter:
    """The spool writer of this process and its settings. A forked child gets its own."""
    global _made
    settings, made = config.settings(), _made
    if made is None or made[0] is not settings:
        with _making:
            made = _made
            if made is None or made[0] is not settings:
                made = _made = (settings, SpoolWriter(settings.spool))
    return made[1]


def _forget() -> None:
    global _made, _making
    _made, _making = None, threading.Lock()


os.register_at_fork(after_in_child=_forget)
