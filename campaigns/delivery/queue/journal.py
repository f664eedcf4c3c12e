"""What this host knows of its own unfinished batches, whatever kills the process that sends them.

A batch is a file: its ids, then one byte per recipient, written through a memory map, so that
every byte set survives ``kill -9`` of the process (not a loss of power). Its owner holds a lock
on it; a lock that can be had means that the owner is dead.

An id that is not in the file, or whose byte is TODO, was never on its way.
"""

import fcntl
import mmap
import os
import secrets
import struct
import time
from collections.abc import Iterator, Sequence
from enum import IntEnum
from pathlib import Path
from types import TracebackType

from campaigns import config


class JournalStatus(IntEnum):
    """How far one recipient's mail got."""

    TODO = 0
    INTENT = 1  # set before the last dot leaves; without a later mark nobody knows
    OK = 2
    REJECTED = 3
    DEFERRED = 4


_COUNT = struct.Struct("<I")
_MARKS = frozenset(JournalStatus)


def directory() -> Path:
    path = config.settings().var / "journal"
    path.mkdir(exist_ok=True)
    return path


def host() -> str:
    """A name for whoever can read this journal directory: random, made once.

    The directory matters and not the machine's name, since containers change theirs.
    """
    path = directory() / "host"
    if not path.exists():
        draft = directory() / f"host.{secrets.token_hex(8)}"
        draft.write_text(secrets.token_hex(8))
        try:
            os.link(draft, path)
        except FileExistsError:
            pass
        draft.unlink()
    return path.read_text()


def _mark(byte: int) -> JournalStatus:
    """A byte that we never write is damage: the mail may be out, and the other batches must go on."""
    return JournalStatus(byte) if byte in _MARKS else JournalStatus.INTENT


class BatchJournal:
    """One batch's file, locked for as long as it is open."""

    def __init__(self, path: Path, descriptor: int) -> None:
        self.path = path
        self._descriptor = descriptor
        self._first = 0
        """Where the marks begin."""
        self._map: mmap.mmap | None = None

    @classmethod
    def create(cls) -> "BatchJournal":
        """A new batch's file. It gets its final name under lock, so nobody takes it for an orphan."""
        path = directory() / f"{secrets.token_hex(8)}.batch"
        draft = path.with_suffix(".new")
        descriptor = os.open(draft, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        draft.rename(path)
        return cls(path, descriptor)

    @property
    def batch(self) -> str:
        """The batch's name in ``sends.claimed_by``: host and file."""
        return f"{host()}/{self.path.stem}"

    def begin(self, ids: Sequence[int]) -> None:
        """Write down whom the batch is for, everybody TODO. An empty one needs no map."""
        head = _COUNT.pack(len(ids)) + struct.pack(f"<{len(ids)}q", *ids)
        os.pwrite(self._descriptor, bytes(len(ids)), len(head))
        os.pwrite(self._descriptor, head, 0)  # last, so that a file with a head is whole
        self._first = len(head)
        self._map = mmap.mmap(self._descriptor, len(head) + len(ids))

    def mark(self, position: int, mark: JournalStatus) -> None:
        """Set the mark of the batch's ``position``-th recipient."""
        assert self._map is not None
        self._map[self._first + position] = mark

    def marks(self) -> dict[int, JournalStatus]:
        """Every id of the file with its mark."""
        raw = os.pread(self._descriptor, os.fstat(self._descriptor).st_size, 0)
        if len(raw) < _COUNT.size:
            return {}
        (count,) = _COUNT.unpack_from(raw)
        if len(raw) < _COUNT.size + 9 * count:
            return {}
        ids = struct.unpack_from(f"<{count}q", raw, _COUNT.size)
        return dict(zip(ids, map(_mark, raw[_COUNT.size + 8 * count :]), strict=False))

    def close(self) -> None:
        """Let go of the file and leave it for the next sweep."""
        if self._map is not None:
            self._map.close()
            self._map = None
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def delete(self) -> None:
        """The batch is recorded in the database: nothing is left to know."""
        self.path.unlink(missing_ok=True)
        self.close()

    def __enter__(self) -> "BatchJournal":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def orphans() -> Iterator[BatchJournal]:
    """The batches whose owner is dead, each locked while the caller looks at it."""
    for path in sorted(directory().glob("*.batch")):
        journal = _adopt(path)
        if journal is not None:
            with journal:
                yield journal


def _adopt(path: Path) -> BatchJournal | None:
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if os.fstat(descriptor).st_nlink:  # else recorded and deleted while we waited
            return BatchJournal(path, descriptor)
    except BlockingIOError:
        pass
    os.close(descriptor)
    return None


def living() -> set[str]:
    """Names of this host's batches whose owner is alive."""
    alive = set()
    for path in directory().glob("*.batch"):
        journal = _adopt(path)
        if journal is None:
            alive.add(f"{host()}/{path.stem}")
        else:
            journal.close()
    return alive


def sweep(older_than: float = 3600.0) -> None:
    """Remove files that a process left half-made; nothing was ever claimed under their names."""
    for path in directory().glob("*.new"):
        try:
            if path.stat().st_mtime < time.time() - older_than:
                path.unlink()
        except FileNotFoundError:
            continue
