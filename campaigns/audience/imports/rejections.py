"""Download of an import's rejected rows: row number, reason, and the original cells."""

import csv
import io
from collections.abc import Callable, Iterator
from itertools import chain

from sqlalchemy import select
from sqlalchemy.orm import Session

from campaigns import db
from campaigns.accounts.actor import Actor, Permission
from campaigns.audience.imports import files
from campaigns.audience.imports.csv_reader import rows
from campaigns.audience.imports.service import FILE_GONE
from campaigns.audience.models import ContactImport, ImportRejection
from campaigns.errors import Conflict

_AT_ONCE = 1000
_BOM = "\ufeff"  # without a BOM, Excel reads UTF-8 as a legacy code page


def rejected_csv(
    actor: Actor, found: ContactImport, say: Callable[[ImportRejection], str], words: tuple[str, str]
) -> Iterator[str]:
    """Return the CSV text as an iterator of pieces. ``headings`` are those of the number and reason columns.

    The pieces are read in a session of their own that closes with the iterator, because they are still streamed
    after the request's session has ended. Raises Conflict when the uploaded file is gone, Forbidden.
    """
    actor.require(Permission.EXPORT)
    path = files.path_of(found.content_key)
    if not path.exists():
        raise Conflict(FILE_GONE)
    return _lines(found, say, words)


def _lines(found: ContactImport, say: Callable[[ImportRejection], str], words: tuple[str, str]) -> Iterator[str]:
    named = [name or f"column_{number}" for number, name in enumerate(found.columns, 1)]
    yield _BOM + _line([*words, *named], found.delimiter)
    file = rows(files.path_of(found.content_key), found.encoding, found.delimiter)
    with db.reading() as session:
        for one in rejections(session, found.id):
            row = next((row for row in file if row.number == one.row_number), None)
            cells = row.cells if row is not None else []
            yield _line([str(one.row_number), say(one), *cells], found.delimiter)


def rejections(session: Session, import_id: int, most: int | None = None) -> Iterator[ImportRejection]:
    """Iterate over rejections in file order, at most ``limit``."""
    ordered = select(ImportRejection).where(ImportRejection.import_id == import_id).order_by(ImportRejection.row_number)
    if most is not None:
        return iter(session.scalars(ordered.limit(most)).all())
    return chain.from_iterable(_pages(session, import_id))


def _pages(session: Session, import_id: int) -> Iterator[list[ImportRejection]]:
    last = -1
    while page := list(
        session.scalars(
            select(ImportRejection)
            .where(ImportRejection.import_id == import_id, ImportRejection.row_number > last)
            .order_by(ImportRejection.row_number)
            .limit(_AT_ONCE)
        )
    ):
        yield page
        last = page[-1].row_number
        session.expunge_all()


def _line(cells: list[str], delimiter: str) -> str:
    out = io.StringIO()
    csv.writer(out, delimiter=delimiter).writerow([harmless(cell) for cell in cells])
    return out.getvalue()


_FORMULA = frozenset("=+-@＝＋－＠")


def harmless(cell: str) -> str:
    """Return the cell prefixed with ``'`` if a spreadsheet would run it as a formula (CSV injection).

    The cells come from strangers, and a coordinator opens them.
    """
    return f"'{cell}" if cell[:1] in ("\t", "\r", "\n") or cell.lstrip()[:1] in _FORMULA else cell
