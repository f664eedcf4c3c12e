"""Reader of spools that are still being written, and deletion of counted files."""

import fcntl
import os
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path

from tracking.spool.record_codec import LONGEST_RECORD, Hit, ScanResult, scan
from tracking.spool.writer import SUFFIX

CHUNK_BYTES = 2 << 20  # About 15,000 hits: one chunk is one transaction, which holds SQLite's write lock.
_PIECE_BYTES = 64 << 10
_AGE_BEFORE_DELETION = 60.0  # The writer locks a file shortly after creating it.


@dataclass(frozen=True, slots=True)
class SpoolFile:
    """One file of a spool. Offsets count over all files of the spool."""

    path: Path
    spool: str
    start: int
    size: int
    """File size in bytes, including preallocated zeros."""

    @property
    def end(self) -> int:
        return self.start + self.size


@dataclass(frozen=True, slots=True)
class ReadResult:
    """Hits of one spool with their offsets, and the offset at which the next read starts."""

    hits: list[tuple[int, Hit]]
    offset: int
    skipped: int = 0
    lost: int = 0


def files(directory: Path) -> dict[str, list[SpoolFile]]:
    """The spool files of this host by spool id, each list in order of offset."""
    found: dict[str, list[SpoolFile]] = {}
    try:
        entries = list(os.scandir(directory))
    except (FileNotFoundError, NotADirectoryError):
        return found
    for entry in entries:
        name, _, start = entry.name.removesuffix(SUFFIX).partition("-")
        if entry.name.endswith(SUFFIX) and len(name) == 32 and len(start) == 16:
            try:
                file = SpoolFile(Path(entry.path), name, int(start, 16), entry.stat().st_size)
            except (ValueError, FileNotFoundError):
                continue
            found.setdefault(name, []).append(file)
    return {spool: _final(sorted(of_spool, key=lambda file: file.start)) for spool, of_spool in found.items()}


def _final(of_spool: list[SpoolFile]) -> list[SpoolFile]:
    """Fix the size of all files that have a successor. A file may grow until its successor is opened, and never after
    that. Bytes past the successor's start are preallocated space that the writer could not truncate.
    """
    final = [
        replace(file, size=min(file.path.stat().st_size, following.start - file.start))
        for file, following in pairwise(of_spool)
    ]
    return final + of_spool[-1:]


def read(of_spool: list[SpoolFile], offset: int, limit: int = CHUNK_BYTES) -> ReadResult:
    """The hits of a spool from ``offset`` on, at most about ``limit`` bytes.

    A torn record at the end of a file is skipped and counted once a later file shows that it will never be completed.
    """
    limit = max(limit, 4 * LONGEST_RECORD)
    for file, following in _with_following(of_spool):
        if file.end <= offset and (following is None or following.start <= offset):
            continue
        before = max(0, file.start - offset)  # Bytes of files that no longer exist.
        begin = max(offset, file.start)
        found = _scan(file, begin, limit, through=following is not None)
        end, hits = begin + found.end, found.hits
        skipped = before + found.skipped
        if following is not None and begin + min(limit, file.end - begin) >= file.end:
            skipped += following.start - end
            end = following.start
        elif not found.end and not found.waits and file.end - begin >= limit:
            end = begin + limit - LONGEST_RECORD  # A whole chunk without a record is damaged.
            skipped += end - begin
        return ReadResult(hits, end, skipped, found.lost)
    return ReadResult([], offset)


def _with_following(of_spool: list[SpoolFile]) -> Iterator[tuple[SpoolFile, SpoolFile | None]]:
    return zip(of_spool, [*of_spool[1:], None], strict=True)


def _scan(file: SpoolFile, begin: int, limit: int, through: bool) -> ScanResult:
    found = scan(_bytes(file, begin, limit, through), begin, through)
    # Another processor may see the writer's stores in a different order; only damage that persists is skipped.
    if found.skipped:
        found = scan(_bytes(file, begin, limit, through), begin, through)
    if found.waits and not found.end and abandoned(file):
        # Zeros in front of records of a dead writer are a hole left by a power cut.
        behind = scan(_bytes(file, begin, limit, True), begin)
        found = behind if behind.end else found
    return found


def _bytes(file: SpoolFile, begin: int, limit: int, through: bool) -> bytes:
    """The bytes from ``begin`` on. For a file that is still written, reading stops soon after the last record."""
    pieces, at, stop = list[bytes](), begin - file.start, min(begin + limit, file.end) - file.start
    with file.path.open("rb", buffering=0) as stream:
        while at < stop and (piece := os.pread(stream.fileno(), min(_PIECE_BYTES, stop - at), at)):
            pieces.append(piece)
            at += len(piece)
            if not through and not piece[-LONGEST_RECORD:].strip(b"\0"):
                break
    return b"".join(pieces)


def abandoned(file: SpoolFile) -> bool:
    """Whether the writer of a file is gone: old enough and no longer flocked."""
    try:
        # After the system clock was set back, the modification time may lie in the future.
        if abs(time.time() - file.path.stat().st_mtime) < _AGE_BEFORE_DELETION:
            return False
        with file.path.open("rb") as stream:
            fcntl.flock(stream, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except FileNotFoundError:
        return False
    except BlockingIOError:
        return False
    return True


def delete_counted(of_spool: list[SpoolFile], offset: int) -> int:
    """Delete the files that are counted up to their end and have no writer. Returns how many were deleted."""
    deleted = 0
    for file in of_spool:
        # An incomplete record of a dead writer is a hit that was never answered.
        if abandoned(file) and (file.end <= offset or not read([file], offset).hits):
            file.path.unlink(missing_ok=True)
            deleted += 1
    return deleted


def backlog(found: Iterable[list[SpoolFile]], offsets: dict[str, int]) -> int:
    """Bytes on this host that are not counted yet, without preallocated zeros. ``offsets``: checkpoint by spool id."""
    return sum(
        max(0, _written(file) - max(file.start, offsets.get(file.spool, 0))) for of_spool in found for file in of_spool
    )


def _written(file: SpoolFile) -> int:
    """The offset behind the last record of a file, before its preallocated zeros."""
    with file.path.open("rb", buffering=0) as stream:
        for stop in range(file.size, 0, -_PIECE_BYTES):
            begin = max(0, stop - _PIECE_BYTES)
            if piece := os.pread(stream.fileno(), stop - begin, begin).rstrip(b"\0"):
                return file.start + begin + len(piece)
    return file.start
