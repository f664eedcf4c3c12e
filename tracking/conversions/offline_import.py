"""CSV import of offline conversions (shop, telephone, till).

The header names the columns: ``id`` and ``event`` are required; ``email``, ``at``, ``value``,
``currency`` and ``activity`` are optional. An invalid row is rejected with its reason, the other rows
are imported. An id counts once, however often its file is uploaded, so an interrupted import resumes
safely.
"""

import csv
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from io import StringIO
from itertools import islice
from pathlib import PurePath
from typing import IO

from sqlalchemy import select
from sqlalchemy.orm import Session

from campaigns import clock, db
from campaigns.accounts import audit
from campaigns.accounts.actor import Actor, Permission
from campaigns.accounts.models import User
from campaigns.audience.imports import files
from campaigns.audience.imports.csv_reader import CsvRow, look, rows
from campaigns.audience.imports.rejections import harmless
from campaigns.errors import KampaniaError, NotFound, ValidationFailed, ValidationProblem
from campaigns.i18n import N_
from tracking.conversions import goals
from tracking.conversions.event_intake import EventReport, report_event
from tracking.models.conversions import GoalKind, OfflineImport, OfflineImportError

COLUMNS = {
    "id": "external_id",
    "external_id": "external_id",
    "order": "external_id",
    "event": "name",
    "goal": "name",
    "name": "name",
    "email": "email",
    "e-mail": "email",
    "at": "at",
    "date": "at",
    "time": "at",
    "value": "value",
    "amount": "value",
    "currency": "currency",
    "activity": "activity_id",
    "activity_id": "activity_id",
}
"""Accepted column names, and the field of :class:`EventReport` that each one fills."""
_CHUNK = 200
_LONGEST_CELL = 200
_LONGEST_FIELD = 80


def upload(session: Session, actor: Actor, *, filename: str, stream: IO[bytes]) -> OfflineImport:
    """Store an uploaded file for the worker to import.

    Raises ValidationFailed when it is not a CSV file or lacks a required column.
    """
    actor.require(Permission.LEADS)
    actor.require(Permission.AUDIENCE)
    key = files.keep(stream)
    try:
        shape = look(files.path_of(key), has_header=True)
        fields = _fields(shape.columns)
        for needed in ("external_id", "name"):
            if needed not in fields:
                raise ValidationFailed(
                    ValidationProblem(
                        N_("The first row names the columns; “id” and “event” must be among them."), "file"
                    )
                )
        total = sum(1 for _ in rows(files.path_of(key), shape.encoding, shape.delimiter)) - 1
    except BaseException:
        files.forget(key)
        raise
    found = OfflineImport(
        filename=_plain(filename),
        content_key=key,
        encoding=shape.encoding,
        delimiter=shape.delimiter,
        columns=[name[:_LONGEST_CELL] for name in shape.columns],
        rows_total=max(0, total),
        error="",
        created_by=actor.id,
        created_at=clock.now(),
    )
    session.add(found)
    session.flush()
    audit.record(session, actor, "upload", "offline import", found.id, filename=found.filename)
    return found


def offline_import(session: Session, import_id: int) -> OfflineImport:
    """The import. Raises NotFound."""
    found = session.get(OfflineImport, import_id)
    if found is None:
        raise NotFound(N_("There is no such import."))
    return found


def refusals(session: Session, found: OfflineImport, most: int) -> Sequence[OfflineImportError]:
    """The first ``limit`` rejected rows, in file order."""
    mine = select(OfflineImportError).where(OfflineImportError.import_id == found.id)
    return session.scalars(mine.order_by(OfflineImportError.row_number).limit(most)).all()


def refused_csv(
    actor: Actor, found: OfflineImport, say: Callable[[OfflineImportError], str], words: tuple[str, str, str]
) -> Iterator[str]:
    """CSV lines of every rejected row: row number, field, reason, then the original cells.

    ``header`` names the first three columns; ``describe`` returns a row's reason. The lines are read in
    sessions of their own, because the response is streamed after the request's session is closed.
    """
    actor.require(Permission.EXPORT)
    return _refused_lines(found, say, words)


def _refused_lines(
    found: OfflineImport, say: Callable[[OfflineImportError], str], words: tuple[str, str, str]
) -> Iterator[str]:
    yield "\ufeff" + _line((*words, *found.columns), found.delimiter)
    last = -1
    mine = (
        select(OfflineImportError)
        .where(OfflineImportError.import_id == found.id)
        .order_by(OfflineImportError.row_number)
    )
    while True:
        with db.reading() as session:
            page = session.scalars(mine.where(OfflineImportError.row_number > last).limit(_CHUNK)).all()
        for one in page:
            yield _line((str(one.row_number), one.field, say(one), *one.cells), found.delimiter)
            last = one.row_number
        if len(page) < _CHUNK:
            return


def _line(cells: Sequence[str], delimiter: str) -> str:
    out = StringIO()
    csv.writer(out, delimiter=delimiter).writerow([harmless(cell) for cell in cells])
    return out.getvalue()


def due(session: Session) -> Sequence[int]:
    """Ids of the first 20 unfinished imports, oldest first."""
    waiting = select(OfflineImport.id).where(OfflineImport.finished_at.is_(None))
    return session.scalars(waiting.order_by(OfflineImport.id).limit(20)).all()


def run(import_id: int) -> None:
    """Run an import to its end, in one transaction per chunk.

    Idempotent; a second worker stops when another one has processed the chunk.
    """
    with db.reading() as session:
        found = offline_import(session, import_id)
    try:
        file = rows(files.path_of(found.content_key), found.encoding, found.delimiter)
        records = islice(file, 1 + found.rows_read, None)
        while chunk := list(islice(records, _CHUNK)):
            with db.transaction() as session:
                if not _take(session, found, chunk):
                    return  # Another worker processes this import.
    except FileNotFoundError:
        _finish(import_id, N_("The uploaded file is no longer there. Upload it again."))
    except NotFound as error:
        _finish(import_id, error.message)
    else:
        _finish(import_id)
        files.forget(found.content_key)


def _take(session: Session, seen: OfflineImport, chunk: list[CsvRow]) -> bool:
    held = session.scalars(
        select(OfflineImport)
        .where(OfflineImport.id == seen.id)
        .with_for_update()
        .execution_options(populate_existing=True)
    ).one()
    if held.finished_at is not None or held.rows_read != seen.rows_read:
        return False
    actor = _uploader(session, held)
    since: dict[str, datetime] = {}
    for goal in goals.waiting_for(session, GoalKind.EVENT):
        for name in (goal.match, goal.key):
            since[name] = min(goal.since, since.get(name, goal.since))
    fields = _fields(held.columns)
    for row in chunk:
        _row(session, held, actor, since, fields, row)
    held.rows_read += len(chunk)
    session.flush()
    seen.rows_read = held.rows_read
    return True


def _row(
    session: Session,
    held: OfflineImport,
    actor: Actor,
    since: Mapping[str, datetime],
    fields: dict[str, int],
    row: CsvRow,
) -> None:
    """Import one row, or store why it is rejected.

    ``since`` maps the name of an event to the instant from which it counts.
    """
    try:
        if row.message:
            raise ValidationFailed(ValidationProblem(row.message))
        given = {field: row.cells[at].strip() for field, at in fields.items() if at < len(row.cells)}
        if given.get("name") and given["name"] not in since:
            raise ValidationFailed(ValidationProblem(N_("No goal waits for an event of this name."), "name"))
        with session.begin_nested():
            report = EventReport(**{"external_id": "", "name": "", **given})  # type: ignore[arg-type]
            event, is_new = report_event(session, actor, report)
            if event.at < since[event.name]:
                raise ValidationFailed(_too_early(since[event.name]))
    except ValidationFailed as error:
        _refuse(session, held, row, error.problems[0])
    except KampaniaError as error:
        _refuse(session, held, row, ValidationProblem(error.message, params=error.params))
    else:
        held.created, held.duplicates = held.created + is_new, held.duplicates + (not is_new)


def _too_early(since: datetime) -> ValidationProblem:
    said = f"{since.astimezone(UTC):%Y-%m-%d %H:%M} UTC"
    return ValidationProblem(N_("Its goal counts what happened from %(since)s on."), "at", params={"since": said})


def _refuse(session: Session, held: OfflineImport, row: CsvRow, problem: ValidationProblem) -> None:
    at = _fields(held.columns).get(problem.field or "")
    held.rejected += 1
    session.add(
        OfflineImportError(
            import_id=held.id,
            row_number=row.number,
            field=(problem.field or "") if at is None else held.columns[at].strip()[:_LONGEST_FIELD],
            message=problem.message,
            params={name: str(value) for name, value in problem.params.items()},
            cells=[cell[:_LONGEST_CELL] for cell in row.cells[:50]],
        )
    )


def _uploader(session: Session, held: OfflineImport) -> Actor:
    """The uploader with their present permissions. Raises NotFound when the user is deleted or locked."""
    person = session.get(User, held.created_by) if held.created_by else None
    if person is None or person.locked_at is not None:
        raise NotFound(N_("Whoever uploaded this file may not do so any more."))
    return Actor.of(person)


def _finish(import_id: int, error: str = "") -> None:
    with db.transaction() as session:
        found = offline_import(session, import_id)
        if found.finished_at is None:
            found.finished_at, found.error = clock.now(), error


def _fields(columns: Sequence[str]) -> dict[str, int]:
    """The column index of each field; the first one when two columns name the same field."""
    found: dict[str, int] = {}
    for at, name in enumerate(columns):
        field = COLUMNS.get(name.strip().lower())
        if field is not None:
            found.setdefault(field, at)
    return found


def _plain(filename: str) -> str:
    name = PurePath(filename.replace("\\", "/")).name
    return "".join(sign for sign in name if sign.isprintable())[:200] or "conversions.csv"
