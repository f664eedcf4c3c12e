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
from campaigns.audience.imports.csv_reader import read_rows
from campaigns.audience.imports.service import FILE_GONE
from campaigns.audience.models import ContactImport, ImportRejection
from campaigns.errors import Conflict

_BATCH_SIZE = 1000
_BOM = "\ufeff"  # without a BOM, Excel reads UTF-8 as a legacy code page


def rejected_csv(
    actor: Actor,
    contact_import: ContactImport,
    format_reason: Callable[[ImportRejection], str],
    headings: tuple[str, str],
) -> Iterator[str]:
    """Return the CSV text as an iterator of pieces. ``headings`` are those of the number and reason columns.

    The pieces are read in a session of their own that closes with the iterator, because they are still streamed
    after the request's session has ended. Raises Conflict when the uploaded file is gone, Forbidden.
    """
    actor.require(Permission.EXPORT)
    path = files.upload_path(contact_import.content_key)
    if not path.exists():
        raise Conflict(FILE_GONE)
    return _csv_lines(contact_import, format_reason, headings)


def _csv_lines(
    contact_import: ContactImport, format_reason: Callable[[ImportRejection], str], headings: tuple[str, str]
) -> Iterator[str]:
    column_names = [name or f"column_{number}" for number, name in enumerate(contact_import.columns, 1)]
    yield _BOM + _csv_line([*headings, *column_names], contact_import.delimiter)
    file = read_rows(files.upload_path(contact_import.content_key), contact_import.encoding, contact_import.delimiter)
    with db.read_only_session() as session:
        for rejection in iter_rejections(session, contact_import.id):
            row = next((row for row in file if row.number == rejection.row_number), None)
            cells = row.cells if row is not None else []
            yield _csv_line([str(rejection.row_number), format_reason(rejection), *cells], contact_import.delimiter)


def iter_rejections(session: Session, import_id: int, limit: int | None = None) -> Iterator[ImportRejection]:
    """Iterate over rejections in file order, at most ``limit``."""
    ordered = select(ImportRejection).where(ImportRejection.import_id == import_id).order_by(ImportRejection.row_number)
    if limit is not None:
        return iter(session.scalars(ordered.limit(limit)).all())
    return chain.from_iterable(_batches(session, import_id))


def _batches(session: Session, import_id: int) -> Iterator[list[ImportRejection]]:
    last = -1
    while page := list(
        session.scalars(
            select(ImportRejection)
            .where(ImportRejection.import_id == import_id, ImportRejection.row_number > last)
            .order_by(ImportRejection.row_number)
            .limit(_BATCH_SIZE)
        )
    ):
        yield page
        last = page[-1].row_number
        session.expunge_all()


def _csv_line(cells: list[str], delimiter: str) -> str:
    out = io.StringIO()
    csv.writer(out, delimiter=delimiter).writerow([neutralise_formula(cell) for cell in cells])
    return out.getvalue()


_FORMULA_STARTS = frozenset("=+-@＝＋－＠")


def neutralise_formula(cell: str) -> str:
    """Return the cell prefixed with ``'`` if a spreadsheet would run it as a formula (CSV injection).

    The cells come from strangers, and a coordinator opens them.
    """
    return f"'{cell}" if cell[:1] in ("\t", "\r", "\n") or cell.lstrip()[:1] in _FORMULA_STARTS else cell
