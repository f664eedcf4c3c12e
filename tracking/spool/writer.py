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
from tracking.spool.preallocation import preallocate
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
        self.lost_hits = 0
        """Hits that could not be stored since the process started."""
        self._directory = directory
        self._rotate_bytes, self._rotate_seconds = rotate_bytes, rotate_seconds
        self._lock = threading.Lock()
        self._fd = -1
        self._file_offset = 0  # Spool offset at which the open file begins.
        self._mapping_offset = 0  # Spool offset of the mapping; without one, the offset behind the last record.
        self._mapping: mmap.mmap | None = None
        self._write_position = 0  # Position of the first free byte in the mapping.
        self._fast_path_end = 0  # End of the positions in the mapping that need no check for rotation or space.
        self._synced_offset = 0
        self._opened_at = 0.0
        self._retry_at = 0.0
        self.unreported_losses = 0
        """Lost hits that no loss record in the spool covers yet."""
        self._sync_thread_started = False

    def append(self, hit: Hit) -> bool:
        """Store a hit. Never raises; False when the disk refused it."""
        return self.append_record(pack(hit))

    def append_record(self, record: bytes) -> bool:
        """Store a packed hit, as :meth:`append` does."""
        # ``acquire`` instead of ``with``: less interpreter work per hit (CPU per answer: tests/benchmarks/hits.py).
        self._lock.acquire()
        try:
            mapping, begin = self._mapping, self._write_position
            stop = begin + len(record)
            if stop > self._fast_path_end or mapping is None:
                return self._append_slow_path(record)
            mapping[begin + 1 : stop] = record[1:]
            mapping[begin] = MAGIC
            self._write_position = stop
            return True
        finally:
            self._lock.release()

    def sync(self) -> None:
        """fdatasync what was written since the last call, and close a file that is older than ``rotate_seconds``."""
        with self._lock:
            if self._fd < 0 or self._synced_offset == self._end_offset:
                fd = -1
            else:
                fd, self._synced_offset = os.dup(self._fd), self._end_offset
            if (
                self._fd >= 0
                and time.monotonic() - self._opened_at > self._rotate_seconds
                and self._end_offset > self._file_offset
            ):
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
    def _end_offset(self) -> int:
        """Spool offset behind the last record."""
        return self._mapping_offset + self._write_position

    def _append_slow_path(self, record: bytes) -> bool:
        try:
            if self._fd >= 0 and self._end_offset - self._file_offset >= self._rotate_bytes:
                self._close()
            if self._fd < 0:
                self._open()
            if self.unreported_losses:
                self._write_loss_record()
            self._write_record(record)
        except OSError as error:
            self._note_refused_write(error)
            return False
        if not self._sync_thread_started:
            self._sync_thread_started = True
            threading.Thread(target=self._sync_forever, name="spool-sync", daemon=True).start()
        return True

    def _open(self) -> None:
        if time.monotonic() < self._retry_at:
            raise OSError("waiting before the next attempt")
        self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        path = self._directory / file_name(self.name, self._end_offset)
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        self._fd, self._file_offset, self._opened_at = fd, self._end_offset, time.monotonic()
        self._preallocate()

    def _write_loss_record(self) -> None:
        """Write a loss record for the hits that were lost."""
        losses, self.unreported_losses = self.unreported_losses, 0
        try:
            self._write_record(pack_loss(losses, clock.now_micros()))
        except OSError:
            self.unreported_losses = losses
            raise

    def _write_record(self, record: bytes) -> None:
        if self._mapping is not None and self._write_position + len(record) > len(self._mapping):
            self._release_mapping()
            self._preallocate()
        if self._mapping is None:
            self._write_to_file(record)
            return
        stop = self._write_position + len(record)
        self._mapping[self._write_position + 1 : stop] = record[1:]
        self._mapping[self._write_position] = MAGIC
        self._write_position = stop

    def _write_to_file(self, record: bytes) -> None:
        written = os.pwrite(self._fd, record, self._end_offset - self._file_offset)
        if written == len(record):
            self._mapping_offset += written
            return
        # A full disk may accept a part of the record. It is truncated; where that fails, the next file begins behind
        # the part, and the collector skips it as a torn record.
        try:
            os.ftruncate(self._fd, self._end_offset - self._file_offset)
        except OSError:
            self._mapping_offset += written
        raise OSError("the disk is full")

    def _preallocate(self) -> None:
        """Preallocate space in the open file. When that fails, records are written with ``pwrite``."""
        with suppress(OSError):
            self._mapping, self._write_position = preallocate(self._fd, self._end_offset - self._file_offset)
            self._mapping_offset -= self._write_position
            self._fast_path_end = min(len(self._mapping), self._file_offset + self._rotate_bytes - self._mapping_offset)

    def _release_mapping(self) -> None:
        self._mapping_offset, self._write_position, self._fast_path_end = self._end_offset, 0, 0
        if self._mapping is not None:
            self._mapping.close()
            self._mapping = None

    def _note_refused_write(self, error: OSError) -> None:
        if not self.unreported_losses:
            log.error("spool.write_failed", spool=self.name, error=str(error))
        self.lost_hits += 1
        self.unreported_losses += 1
        if self._fd >= 0 or time.monotonic() >= self._retry_at:
            self._close()
            self._retry_at = time.monotonic() + RETRY_SECONDS

    def _close(self) -> None:
        """Close the file, truncated to its records. An empty file is removed, so that its name is free for the next
        attempt.
        """
        fd, self._fd, had_mapping = self._fd, -1, self._mapping is not None
        if fd < 0:
            return
        self._release_mapping()
        try:
            if self._end_offset == self._file_offset:
                (self._directory / file_name(self.name, self._file_offset)).unlink(missing_ok=True)
            else:
                if had_mapping:
                    os.ftruncate(fd, self._end_offset - self._file_offset)
                os.fdatasync(fd)
        except OSError as error:
            if self._end_offset == self._file_offset:
                self._mapping_offset += 1  # The name stays taken, so the next file needs another offset.
            log.error("spool.sync_failed", spool=self.name, error=str(error))
        os.close(fd)

    def _sync_forever(self) -> None:
        while True:
            time.sleep(SYNC_SECONDS)
            try:
                self.sync()
            except OSError as error:
                log.error("spool.sync_failed", spool=self.name, error=str(error))


_instance: tuple[config.Settings, SpoolWriter] | None = None
_instance_lock = threading.Lock()


def spool_writer() -> SpoolWriter:
    """The spool writer of this process and its settings. A forked child gets its own."""
    global _instance
    settings, instance = config.settings(), _instance
    if instance is None or instance[0] is not settings:
        with _instance_lock:
            instance = _instance
            if instance is None or instance[0] is not settings:
                instance = _instance = (settings, SpoolWriter(settings.spool))
    return instance[1]


def _reset_after_fork() -> None:
    global _instance, _instance_lock
    _instance, _instance_lock = None, threading.Lock()


os.register_at_fork(after_in_child=_reset_after_fork)
