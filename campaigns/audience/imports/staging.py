"""The rows of one file, cleaned and sorted by address, in a scratch file beside the upload.

Sorted rows are what makes an import fast, and a fixed order is what makes it restartable: "how far"
is one number. Sorting happens here, not in the database, so that nobody waits for its writer
meanwhile. The scratch file appears under its name when it is complete, and can always be made again.
"""

import sqlite3
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing, contextmanager
from itertools import islice
from pathlib import Path
from typing import NamedTuple

from campaigns.audience.imports.row_cleaning import ParsedRow

_AT_ONCE = 10_000


class StagedRow(NamedTuple):
    """A cleaned row in its place. ``first_row`` is the first row of the file with this address."""

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


def stage(path: Path, rows: Iterable[ParsedRow], on_way: Callable[[int], None]) -> None:
    """Write the scratch file; ``on_way`` is told now and then how many rows were read."""
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
        marks = ", ".join("?" * len(ParsedRow._fields))
        while chunk := list(islice(iterator, _AT_ONCE)):
            scratch.executemany(f"INSERT INTO rows VALUES ({marks})", chunk)  # noqa: S608 (question marks)
            count += len(chunk)
            on_way(count)
        scratch.execute(
            f"CREATE TABLE sorted AS SELECT {columns}, min(row) OVER (PARTITION BY email) AS first_row"  # noqa: S608
            " FROM rows ORDER BY email, row"
        )
        scratch.execute("DROP TABLE rows")
        scratch.execute("COMMIT")
    draft.replace(path)


class StagingFile:
    """Reads a scratch file."""

    def __init__(self, scratch: sqlite3.Connection) -> None:
        self._scratch = scratch
        self.total: int = scratch.execute("SELECT count(*) FROM sorted").fetchone()[0]

    def rows(self, after: int, limit: int) -> list[StagedRow]:
        """The rows at the places after ``after``, in their order."""
        found = self._scratch.execute("SELECT * FROM sorted WHERE rowid > ? ORDER BY rowid LIMIT ?", (after, limit))
        return [StagedRow(*row) for row in found]


@contextmanager
def opened(path: Path) -> Iterator[StagingFile]:
    with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as scratch:
        yield StagingFile(scratch)
