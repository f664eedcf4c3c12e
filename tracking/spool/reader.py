"""Reading spools that others are still writing, and deleting what has been counted."""

import fcntl
import os
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path

from tracking.spool.record_codec import LONGEST_RECORD, Hit, ScanResult, scan
from tracking.spool.writer import SUFFIX

CHUNK_BYTES = 2 << 20  # Of hits some 15,000: the database is held for a quarter of a second.
_PIECE_BYTES = 64 << 10
_AGE_BEFORE_DELETION = 60.0  # A file just made may not be locked by its writer yet.


@dataclass(frozen=True, slots=True)
class SpoolFile:
    """One file of a spool; offsets count over all files of it."""

    path: Path
    spool: str
    start: int
    size: int
    """Bytes, among them the zeros of room that its writer has reserved."""

    @property
    def end(self) -> int:
        return self.start + self.size


@dataclass(frozen=True, slots=True)
class ReadResult:
    """Hits of one spool with their offsets, and the offset from which to go on."""

    hits: list[tuple[int, Hit]]
    offset: int
    skipped: int = 0
    lost: int = 0


def files(directory: Path) -> dict[str, list[SpoolFile]]:
    """The spool files of this host by spool, in order."""
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
    """A file may have grown until its successor, which we saw, was opened; from then on it never does. What it has
    behind that is room which its writer could not give back."""
    final = [
        replace(file, size=min(file.path.stat().st_size, following.start - file.start))
        for file, following in pairwise(of_spool)
    ]
    return final + of_spool[-1:]


def read(of_spool: list[SpoolFile], offset: int, limit: int = CHUNK_BYTES) -> ReadResult:
    """What a spool holds from ``offset`` on, at most about ``limit`` bytes of it.

    Where a file ends in a torn record and a later file shows that nobody will mend it, the tail is
    skipped and counted.
    """
    limit = max(limit, 4 * LONGEST_RECORD)
    for file, following in _with_following(of_spool):
        if file.end <= offset and (following is None or following.start <= offset):
            continue
        before = max(0, file.start - offset)  # Bytes of files that are gone.
        begin = max(offset, file.start)
        found = _scan(file, begin, limit, through=following is not None)
        end, hits = begin + found.end, found.hits
        skipped = before + found.skipped
        if following is not None and begin + min(limit, file.end - begin) >= file.end:
            skipped += following.start - end
            end = following.start
        elif not found.end and not found.waits and file.end - begin >= limit:
            end = begin + limit - LONGEST_RECORD  # A whole chunk without a record: damaged.
            skipped += end - begin
        return ReadResult(hits, end, skipped, found.lost)
    return ReadResult([], offset)


def _with_following(of_spool: list[SpoolFile]) -> Iterator[tuple[SpoolFile, SpoolFile | None]]:
    return zip(of_spool, [*of_spool[1:], None], strict=True)


def _scan(file: SpoolFile, begin: int, limit: int, through: bool) -> ScanResult:
    found = scan(_bytes(file, begin, limit, through), begin, through)
    if found.skipped:  # Processors may show what a writer does in another order: damage is what stays.
        found = scan(_bytes(file, begin, limit, through), begin, through)
    if found.waits and not found.end and abandoned(file):
        behind = scan(_bytes(file, begin, limit, True), begin)  # Of what was written, zeros are left by a power cut.
        found = behind if behind.end else found
    return found


def _bytes(file: SpoolFile, begin: int, limit: int, through: bool) -> bytes:
    """What stands there; of a file that is still written to, hardly more than what is written."""
    pieces, at, stop = list[bytes](), begin - file.start, min(begin + limit, file.end) - file.start
    with file.path.open("rb", buffering=0) as stream:
        while at < stop and (piece := os.pread(stream.fileno(), min(_PIECE_BYTES, stop - at), at)):
            pieces.append(piece)
            at += len(piece)
            if not through and not piece[-LONGEST_RECORD:].strip(b"\0"):
                break
    return b"".join(pieces)


def abandoned(file: SpoolFile) -> bool:
    """Whether its writer is gone, whatever became of it."""
    try:
        # Its time may lie in the future, after a clock was set back.
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
    """Delete the files that are counted up to their end and that nobody writes to any more."""
    deleted = 0
    for file in of_spool:
        # What still hangs on a dead writer's file without being a record is a hit that was never answered.
        if abandoned(file) and (file.end <= offset or not read([file], offset).hits):
            file.path.unlink(missing_ok=True)
            deleted += 1
    return deleted


def backlog(found: Iterable[list[SpoolFile]], offsets: dict[str, int]) -> int:
    """Bytes on this host that are not counted yet."""
    return sum(
        max(0, _written(file) - max(file.start, offsets.get(file.spool, 0))) for of_spool in found for file in of_spool
    )


def _written(file: SpoolFile) -> int:
    """Where a file's records end: before the zeros of its room."""
    with file.path.open("rb", buffering=0) as stream:
        for stop in range(file.size, 0, -_PIECE_BYTES):
            begin = max(0, stop - _PIECE_BYTES)
            if piece := os.pread(stream.fileno(), stop - begin, begin).rstrip(b"\0"):
                return file.start + begin + len(piece)
    return file.start
