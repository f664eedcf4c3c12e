"""Helpers that write hits to spools and read them back."""

import os
from collections.abc import Callable
from pathlib import Path

from tracking.spool import reader
from tracking.spool.record_codec import Hit

NO_SPACE = OSError(28, "No space left on device")


def raise_no_space(*_: object) -> None:
    raise NO_SPACE


def fork_process(work: Callable[[], None]) -> int:
    """Fork a process that runs ``work`` and exits with 0 if it succeeds. Returns its pid."""
    pid = os.fork()
    if pid == 0:
        try:
            work()
            os._exit(0)
        finally:
            os._exit(1)
    return pid


def make_hit(number: int = 1, agent: bytes = b"agent") -> Hit:
    return Hit(1_700_000_000_000_000 + number, 1, 0, 1 << 32 | number, number, 7, agent)


def read_all(directory: Path) -> list[Hit]:
    hits = []
    for files in reader.list_spools(directory).values():
        offset = 0
        while (read := reader.read_chunk(files, offset, 500)).offset != offset:
            hits += [hit for _, hit in read.hits]
            offset = read.offset
    return hits


def lost_and_skipped(directory: Path) -> tuple[int, int]:
    """Lost hits in loss records and skipped bytes of the only spool."""
    (of_spool,) = reader.list_spools(directory).values()
    offset = lost = skipped = 0
    while (read := reader.read_chunk(of_spool, offset)).offset != offset:
        offset, lost, skipped = read.offset, lost + read.lost_hits, skipped + read.skipped_bytes
    return lost, skipped
