"""Reader of spools that are still being written, and deletion of counted files."""

import fcntl
import os
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path

from tracking.spool.record_codec import MAX_RECORD_BYTES, Hit, ScanResult, scan
from tracking.spool.writer import SUFFIX

CHUNK_BYTES = 2 << 20  # About 15,000 hits: one chunk is one transaction, which holds SQLite's write lock.
_BLOCK_BYTES = 64 << 10
_MIN_AGE_SECONDS = 60.0  # The writer locks a file shortly after creating it.


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
    skipped_bytes: int = 0
    lost_hits: int = 0


def list_spools(directory: Path) -> dict[str, list[SpoolFile]]:
    """The spool files of this host by spool id, each list in order of offset."""
    spools: dict[str, list[SpoolFile]] = {}
    try:
        entries = list(os.scandir(directory))
    except (FileNotFoundError, NotADirectoryError):
        return spools
    for entry in entries:
        name, _, start = entry.name.removesuffix(SUFFIX).partition("-")
        if entry.name.endswith(SUFFIX) and len(name) == 32 and len(start) == 16:
            try:
                file = SpoolFile(Path(entry.path), name, int(start, 16), entry.stat().st_size)
            except (ValueError, FileNotFoundError):
                continue
            spools.setdefault(name, []).append(file)
    return {
        spool: _with_final_sizes(sorted(of_spool, key=lambda file: file.start)) for spool, of_spool in spools.items()
    }


def _with_final_sizes(files: list[SpoolFile]) -> list[SpoolFile]:
    """Fix the size of all files that have a successor. A file may grow until its successor is opened, and never after
    that. Bytes past the successor's start are preallocated space that the writer could not truncate.
    """
    final = [
        replace(file, size=min(file.path.stat().st_size, following.start - file.start))
        for file, following in pairwise(files)
    ]
    return final + files[-1:]


def read_chunk(files: list[SpoolFile], offset: int, limit: int = CHUNK_BYTES) -> ReadResult:
    """The hits of a spool from ``offset`` on, at most about ``limit`` bytes.

    A torn record at the end of a file is skipped and counted once a later file shows that it will never be completed.
    """
    limit = max(limit, 4 * MAX_RECORD_BYTES)
    for file, following in _with_successors(files):
        if file.end <= offset and (following is None or following.start <= offset):
            continue
        deleted_bytes = max(0, file.start - offset)  # Bytes of files that no longer exist.
        begin = max(offset, file.start)
        result = _scan_file(file, begin, limit, past_zeros=following is not None)
        end, hits = begin + result.end, result.hits
        skipped = deleted_bytes + result.skipped_bytes
        if following is not None and begin + min(limit, file.end - begin) >= file.end:
            skipped += following.start - end
            end = following.start
        elif not result.end and not result.reached_unwritten and file.end - begin >= limit:
            end = begin + limit - MAX_RECORD_BYTES  # A whole chunk without a record is damaged.
            skipped += end - begin
        return ReadResult(hits, end, skipped, result.lost_hits)
    return ReadResult([], offset)


def _with_successors(files: list[SpoolFile]) -> Iterator[tuple[SpoolFile, SpoolFile | None]]:
    return zip(files, [*files[1:], None], strict=True)


def _scan_file(file: SpoolFile, begin: int, limit: int, past_zeros: bool) -> ScanResult:
    result = scan(_read_bytes(file, begin, limit, past_zeros), begin, past_zeros)
    # Another processor may see the writer's stores in a different order; only damage that persists is skipped.
    if result.skipped_bytes:
        result = scan(_read_bytes(file, begin, limit, past_zeros), begin, past_zeros)
    if result.reached_unwritten and not result.end and is_abandoned(file):
        # Zeros in front of records of a dead writer are a hole left by a power cut.
        past_hole = scan(_read_bytes(file, begin, limit, True), begin)
        result = past_hole if past_hole.end else result
    return result


def _read_bytes(file: SpoolFile, begin: int, limit: int, past_zeros: bool) -> bytes:
    """The bytes from ``begin`` on. For a file that is still written, reading stops soon after the last record."""
    blocks, at, stop = list[bytes](), begin - file.start, min(begin + limit, file.end) - file.start
    with file.path.open("rb", buffering=0) as stream:
        while at < stop and (piece := os.pread(stream.fileno(), min(_BLOCK_BYTES, stop - at), at)):
            blocks.append(piece)
            at += len(piece)
            if not past_zeros and not piece[-MAX_RECORD_BYTES:].strip(b"\0"):
                break
    return b"".join(blocks)


def is_abandoned(file: SpoolFile) -> bool:
    """Whether the writer of a file is gone: old enough and no longer flocked."""
    try:
        # After the system clock was set back, the modification time may lie in the future.
        if abs(time.time() - file.path.stat().st_mtime) < _MIN_AGE_SECONDS:
            return False
        with file.path.open("rb") as stream:
            fcntl.flock(stream, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except FileNotFoundError:
        return False
    except BlockingIOError:
        return False
    return True


def delete_counted(files: list[SpoolFile], offset: int) -> int:
    """Delete the files that are counted up to their end and have no writer. Returns how many were deleted."""
    deleted = 0
    for file in files:
        # An incomplete record of a dead writer is a hit that was never answered.
        if is_abandoned(file) and (file.end <= offset or not read_chunk([file], offset).hits):
            file.path.unlink(missing_ok=True)
            deleted += 1
    return deleted


def backlog_bytes(spools: Iterable[list[SpoolFile]], offsets: dict[str, int]) -> int:
    """Bytes on this host that are not counted yet, without preallocated zeros. ``offsets``: checkpoint by spool id."""
    return sum(
        max(0, _end_of_records(file) - max(file.start, offsets.get(file.spool, 0)))
        for of_spool in spools
        for file in of_spool
    )


def _end_of_records(file: SpoolFile) -> int:
    """The offset behind the last record of a file, before its preallocated zeros."""
    with file.path.open("rb", buffering=0) as stream:
        for stop in range(file.size, 0, -_BLOCK_BYTES):
            begin = max(0, stop - _BLOCK_BYTES)
            if piece := os.pread(stream.fileno(), stop - begin, begin).rstrip(b"\0"):
                return file.start + begin + len(piece)
    return file.start
