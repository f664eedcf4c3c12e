"""Append-only files: an answered hit survives kill -9.

Every process writes its own file set, named by a random id. A hit is copied into room that was reserved
before, and its first byte last: where a record should begin and a zero stands, nothing is written yet.
Without such room it is one ``write()`` per hit. Either way the page cache outlives the process, and a thread
calls fdatasync a few times a second. A file's name carries the offset at which it begins, so (spool, offset)
names a hit for ever.

A disk that is full or read-only never stops an answer: what is lost is counted, logged, and written
down as a record of its own as soon as the disk takes it.
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
ROTATE_SECONDS = 3600.0  # Collected files must go within 24 hours, so an idle process lets go of its file.


def file_name(name: str, start: int) -> str:
    return f"{name}-{start:016x}{SUFFIX}"


class SpoolWriter:
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
        self._start = 0  # Offset, over all files, at which the open file begins.
        self._base = 0  # Offset at which its room begins; without room, behind the last record.
        self._room: mmap.mmap | None = None
        self._free = 0  # Where in the room nothing is written yet.
        self._full = 0  # Where in it a record must end to go there without further thought.
        self._synced = 0
        self._opened = 0.0
        self._retry_at = 0.0
        self.untold = 0
        """Those of them which no record in the spool tells of yet."""
        self._syncing = False

    def append(self, hit: Hit) -> bool:
        """Keep a hit. Never raises; False when the disk refused it."""
        return self.keep(pack(hit))

    def keep(self, record: bytes) -> bool:
        """Keep a packed hit, as :meth:`append` does."""
        self._lock.acquire()  # Not ``with``: that takes twice as long.
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
        """Bring what was written to the disk, and let go of a file that has become old."""
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
        """Offset behind the last record, over all files."""
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
        """Write down how many hits were lost."""
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
        # A full disk takes a part. Taken back, it is as if never written; else the next file
        # begins behind it, and the collector skips it as a torn tail.
        try:
            os.ftruncate(self._fd, self._end - self._start)
        except OSError:
            self._base += written
        raise OSError("the disk is full")

    def _reserve(self) -> None:
        """Take room in the open file. Without any, records are written as long as the disk takes them."""
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
        """Give the file up, as long as what is written; an empty one goes, so that its name is free for the next
        attempt."""
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
                self._base += 1  # The name stays taken.
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
    """The spool of this process and its settings; a forked child gets one of its own."""
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
