"""Journal of this host's unfinished batches, which survives a kill of the sending process.

Each batch is one file: the number of ids (uint32, little endian), the ids (int64 each), then one status byte per
recipient. The bytes are written through a memory map, so every byte that is set survives ``kill -9`` of the process
(not a power loss). The owner holds an exclusive ``flock`` on the file; when another process gets the lock, the owner is
dead.

An id that is not in the file, or whose byte is TODO, was never sent to a relay.
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
    """Progress of one recipient's mail, as stored in the journal."""

    TODO = 0
    INTENT = 1  # set before the last dot is sent; without a later status the outcome is unknown
    OK = 2
    REJECTED = 3
    DEFERRED = 4


_COUNT = struct.Struct("<I")
_KNOWN_STATUSES = frozenset(JournalStatus)


def directory() -> Path:
    """The journal directory, created when missing."""
    path = config.settings().var / "journal"
    path.mkdir(exist_ok=True)
    return path


def host_id() -> str:
    """The random id of this journal directory, created once.

    It identifies the directory and not the machine, because a container's host name changes.
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


def _parse_status(byte: int) -> JournalStatus:
    """The status of a byte. A byte that is never written means damage: INTENT, because the mail may have been sent."""
    return JournalStatus(byte) if byte in _KNOWN_STATUSES else JournalStatus.INTENT


class BatchJournal:
    """The journal file of one batch, locked while it is open."""

    def __init__(self, path: Path, descriptor: int) -> None:
        self.path = path
        self._descriptor = descriptor
        self._status_offset = 0
        """Offset of the first status byte."""
        self._map: mmap.mmap | None = None

    @classmethod
    def create(cls) -> "BatchJournal":
        """Create the file of a new batch. It is renamed to its final name once locked, so no process adopts it."""
        path = directory() / f"{secrets.token_hex(8)}.batch"
        draft = path.with_suffix(".new")
        descriptor = os.open(draft, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        draft.rename(path)
        return cls(path, descriptor)

    @property
    def batch(self) -> str:
        """The batch's name in ``sends.claimed_by``: ``<host id>/<file stem>``."""
        return f"{host_id()}/{self.path.stem}"

    def write_ids(self, ids: Sequence[int]) -> None:
        """Write the ids of the batch, each with status TODO, and map the file. Needs at least one id."""
        header = _COUNT.pack(len(ids)) + struct.pack(f"<{len(ids)}q", *ids)
        os.pwrite(self._descriptor, bytes(len(ids)), len(header))
        os.pwrite(self._descriptor, header, 0)  # The header is written last: a file with a header is complete.
        self._status_offset = len(header)
        self._map = mmap.mmap(self._descriptor, len(header) + len(ids))

    def set_status(self, position: int, status: JournalStatus) -> None:
        """Set the status of the recipient at ``position``."""
        assert self._map is not None
        self._map[self._status_offset + position] = status

    def statuses(self) -> dict[int, JournalStatus]:
        """Send id → status, for every id of the file; empty when the file is incomplete."""
        raw = os.pread(self._descriptor, os.fstat(self._descriptor).st_size, 0)
        if len(raw) < _COUNT.size:
            return {}
        (count,) = _COUNT.unpack_from(raw)
        if len(raw) < _COUNT.size + 9 * count:
            return {}
        ids = struct.unpack_from(f"<{count}q", raw, _COUNT.size)
        return dict(zip(ids, map(_parse_status, raw[_COUNT.size + 8 * count :]), strict=False))

    def close(self) -> None:
        """Close and unlock the file; it stays on disk for the next take-over."""
        if self._map is not None:
            self._map.close()
            self._map = None
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def delete(self) -> None:
        """Delete the file, after its results are committed to the database."""
        self.path.unlink(missing_ok=True)
        self.close()

    def __enter__(self) -> "BatchJournal":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def orphans() -> Iterator[BatchJournal]:
    """Journals whose owner is dead. Each is locked until the next one is requested."""
    for path in sorted(directory().glob("*.batch")):
        journal = _lock_orphan(path)
        if journal is not None:
            with journal:
                yield journal


def _lock_orphan(path: Path) -> BatchJournal | None:
    """Open and lock the journal; None when its owner is alive or the file is gone."""
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if os.fstat(descriptor).st_nlink:  # 0 links: deleted between open() and flock().
            return BatchJournal(path, descriptor)
    except BlockingIOError:
        pass
    os.close(descriptor)
    return None


def live_batches() -> set[str]:
    """Names of this host's batches whose owner is alive, as in ``sends.claimed_by``."""
    batches = set()
    for path in directory().glob("*.batch"):
        journal = _lock_orphan(path)
        if journal is None:
            batches.add(f"{host_id()}/{path.stem}")
        else:
            journal.close()
    return batches


def delete_stale_drafts(older_than: float = 3600.0) -> None:
    """Delete draft files older than ``older_than`` seconds. No send is ever claimed under a draft's name."""
    for path in directory().glob("*.new"):
        try:
            if path.stat().st_mtime < time.time() - older_than:
                path.unlink()
        except FileNotFoundError:
            continue
