"""Staging file of an import: cleaned rows sorted by address, in an SQLite file beside the upload.

A fixed order makes an import restartable: its progress is one number. Sorted rows reach the index of addresses in
order. Sorting happens outside of the database, so it does not occupy SQLite's one writer. The file gets its final
name when it is complete, and can be rebuilt from the upload at any time.
"""

import sqlite3
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing, contextmanager
from itertools import islice
from pathlib import Path
from typing import NamedTuple

from campaigns.audience.imports.row_cleaning import ParsedRow

_BATCH_SIZE = 10_000


class StagedRow(NamedTuple):
    """A cleaned row at its sorted position. ``first_row`` is the number of the first row with the same address."""

    row: int
    email: str | None
    first_name: str
    last_name: str
    language: str | None
    timezone: str | None
    attributes: str
    message: str
    params: str
    field: str
    first_row: int


def write_staging_file(path: Path, rows: Iterable[ParsedRow], on_progress: Callable[[int], None]) -> None:
    """Write the staging file; ``on_progress`` is called after each batch with the number of rows read so far."""
    draft = path.with_suffix(".draft")
    draft.unlink(missing_ok=True)
    draft.touch(mode=0o600)
    with closing(sqlite3.connect(draft, isolation_level=None)) as scratch:
        for pragma in ("journal_mode=OFF", "synchronous=OFF", "cache_size=-64000"):
            scratch.execute(f"PRAGMA {pragma}")
        columns = ", ".join(ParsedRow._fields)
        scratch.execute(f"CREATE TABLE rows ({columns})")
        scratch.execute("BEGIN")
        count, iterator = 0, iter(rows)
        placeholders = ", ".join("?" * len(ParsedRow._fields))
        while chunk := list(islice(iterator, _BATCH_SIZE)):
            scratch.executemany(f"INSERT INTO rows VALUES ({placeholders})", chunk)  # noqa: S608 (question marks)
            count += len(chunk)
            on_progress(count)
        scratch.execute(
            f"CREATE TABLE sorted AS SELECT {columns}, min(row) OVER (PARTITION BY email) AS first_row"  # noqa: S608
            " FROM rows ORDER BY email, row"
        )
        scratch.execute("DROP TABLE rows")
        scratch.execute("COMMIT")
    draft.replace(path)


class StagingFile:
    """Reader of a staging file. ``total`` is its number of rows."""

    def __init__(self, scratch: sqlite3.Connection) -> None:
        self._scratch = scratch
        self.total: int = scratch.execute("SELECT count(*) FROM sorted").fetchone()[0]

    def rows(self, after: int, limit: int) -> list[StagedRow]:
        """Return up to ``limit`` rows after position ``after``, in sorted order."""
        found = self._scratch.execute("SELECT * FROM sorted WHERE rowid > ? ORDER BY rowid LIMIT ?", (after, limit))
        return [StagedRow(*row) for row in found]


@contextmanager
def open_staging_file(path: Path) -> Iterator[StagingFile]:
    """Open a staging file read-only."""
    with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as scratch:
        yield StagingFile(scratch)
