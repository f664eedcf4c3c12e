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
from campaigns.audience.imports.csv_reader import CsvRow, read_rows, sniff_dialect
from campaigns.audience.imports.rejections import neutralise_formula
from campaigns.errors import KampaniaError, NotFound, ValidationFailed, ValidationProblem
from campaigns.i18n import N_
from tracking.conversions import goals
from tracking.conversions.event_intake import EventReport, report_event
from tracking.models.conversions import GoalKind, OfflineImport, OfflineImportError

COLUMN_ALIASES = {
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
_CHUNK_ROWS = 200
_MAX_CELL_LENGTH = 200
_MAX_FIELD_LENGTH = 80


def upload(session: Session, actor: Actor, *, filename: str, stream: IO[bytes]) -> OfflineImport:
    """Store an uploaded file for the worker to import.

    Raises ValidationFailed when it is not a CSV file or lacks a required column.
    """
    actor.require(Permission.LEADS)
    actor.require(Permission.AUDIENCE)
    key = files.store_upload(stream)
    try:
        layout = sniff_dialect(files.upload_path(key), has_header=True)
        fields = _field_indexes(layout.columns)
        for required in ("external_id", "name"):
            if required not in fields:
                raise ValidationFailed(
                    ValidationProblem(
                        N_("The first row names the columns; “id” and “event” must be among them."), "file"
                    )
                )
        total = sum(1 for _ in read_rows(files.upload_path(key), layout.encoding, layout.delimiter)) - 1
    except BaseException:
        files.delete_files(key)
        raise
    import_job = OfflineImport(
        filename=_safe_filename(filename),
        content_key=key,
        encoding=layout.encoding,
        delimiter=layout.delimiter,
        columns=[name[:_MAX_CELL_LENGTH] for name in layout.columns],
        rows_total=max(0, total),
        error="",
        created_by=actor.id,
        created_at=clock.now(),
    )
    session.add(import_job)
    session.flush()
    audit.record(session, actor, "upload", "offline import", import_job.id, filename=import_job.filename)
    return import_job


def get_import(session: Session, import_id: int) -> OfflineImport:
    """The import. Raises NotFound."""
    import_job = session.get(OfflineImport, import_id)
    if import_job is None:
        raise NotFound(N_("There is no such import."))
    return import_job


def rejected_rows(session: Session, import_job: OfflineImport, limit: int) -> Sequence[OfflineImportError]:
    """The first ``limit`` rejected rows, in file order."""
    query = select(OfflineImportError).where(OfflineImportError.import_id == import_job.id)
    return session.scalars(query.order_by(OfflineImportError.row_number).limit(limit)).all()


def rejected_rows_csv(
    actor: Actor, import_job: OfflineImport, describe: Callable[[OfflineImportError], str], header: tuple[str, str, str]
) -> Iterator[str]:
    """CSV lines of every rejected row: row number, field, reason, then the original cells.

    ``header`` names the first three columns; ``describe`` returns a row's reason. The lines are read in
    sessions of their own, because the response is streamed after the request's session is closed.
    """
    actor.require(Permission.EXPORT)
    return _rejected_lines(import_job, describe, header)


def _rejected_lines(
    import_job: OfflineImport, describe: Callable[[OfflineImportError], str], header: tuple[str, str, str]
) -> Iterator[str]:
    yield "\ufeff" + _csv_line((*header, *import_job.columns), import_job.delimiter)
    last = -1
    query = (
        select(OfflineImportError)
        .where(OfflineImportError.import_id == import_job.id)
        .order_by(OfflineImportError.row_number)
    )
    while True:
        with db.read_only_session() as session:
            page = session.scalars(query.where(OfflineImportError.row_number > last).limit(_CHUNK_ROWS)).all()
        for row in page:
            yield _csv_line((str(row.row_number), row.field, describe(row), *row.cells), import_job.delimiter)
            last = row.row_number
        if len(page) < _CHUNK_ROWS:
            return


def _csv_line(cells: Sequence[str], delimiter: str) -> str:
    buffer = StringIO()
    csv.writer(buffer, delimiter=delimiter).writerow([neutralise_formula(cell) for cell in cells])
    return buffer.getvalue()


def due_import_ids(session: Session) -> Sequence[int]:
    """Ids of the first 20 unfinished imports, oldest first."""
    query = select(OfflineImport.id).where(OfflineImport.finished_at.is_(None))
    return session.scalars(query.order_by(OfflineImport.id).limit(20)).all()


def run(import_id: int) -> None:
    """Run an import to its end, in one transaction per chunk.

    Idempotent; a second worker stops when another one has processed the chunk.
    """
    with db.read_only_session() as session:
        import_job = get_import(session, import_id)
    try:
        all_rows = read_rows(files.upload_path(import_job.content_key), import_job.encoding, import_job.delimiter)
        remaining_rows = islice(all_rows, 1 + import_job.rows_read, None)
        while chunk := list(islice(remaining_rows, _CHUNK_ROWS)):
            with db.transaction() as session:
                if not _import_chunk(session, import_job, chunk):
                    return  # Another worker processes this import.
    except FileNotFoundError:
        _finish_import(import_id, N_("The uploaded file is no longer there. Upload it again."))
    except NotFound as error:
        _finish_import(import_id, error.message)
    else:
        _finish_import(import_id)
        files.delete_files(import_job.content_key)


def _import_chunk(session: Session, snapshot: OfflineImport, chunk: list[CsvRow]) -> bool:
    locked = session.scalars(
        select(OfflineImport)
        .where(OfflineImport.id == snapshot.id)
        .with_for_update()
        .execution_options(populate_existing=True)
    ).one()
    if locked.finished_at is not None or locked.rows_read != snapshot.rows_read:
        return False
    actor = _uploading_actor(session, locked)
    since: dict[str, datetime] = {}
    for goal in goals.active_goals(session, GoalKind.EVENT):
        for name in (goal.match, goal.key):
            since[name] = min(goal.since, since.get(name, goal.since))
    fields = _field_indexes(locked.columns)
    for row in chunk:
        _import_row(session, locked, actor, since, fields, row)
    locked.rows_read += len(chunk)
    session.flush()
    snapshot.rows_read = locked.rows_read
    return True


def _import_row(
    session: Session,
    import_job: OfflineImport,
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
        values = {field: row.cells[at].strip() for field, at in fields.items() if at < len(row.cells)}
        if values.get("name") and values["name"] not in since:
            raise ValidationFailed(ValidationProblem(N_("No goal waits for an event of this name."), "name"))
        with session.begin_nested():
            report = EventReport(**{"external_id": "", "name": "", **values})  # type: ignore[arg-type]
            event, is_new = report_event(session, actor, report)
            if event.at < since[event.name]:
                raise ValidationFailed(_too_early_problem(since[event.name]))
    except ValidationFailed as error:
        _reject_row(session, import_job, row, error.problems[0])
    except KampaniaError as error:
        _reject_row(session, import_job, row, ValidationProblem(error.message, params=error.params))
    else:
        import_job.created, import_job.duplicates = import_job.created + is_new, import_job.duplicates + (not is_new)


def _too_early_problem(since: datetime) -> ValidationProblem:
    since_text = f"{since.astimezone(UTC):%Y-%m-%d %H:%M} UTC"
    return ValidationProblem(N_("Its goal counts what happened from %(since)s on."), "at", params={"since": since_text})


def _reject_row(session: Session, import_job: OfflineImport, row: CsvRow, problem: ValidationProblem) -> None:
    column_index = _field_indexes(import_job.columns).get(problem.field or "")
    import_job.rejected += 1
    session.add(
        OfflineImportError(
            import_id=import_job.id,
            row_number=row.number,
            field=(problem.field or "")
            if column_index is None
            else import_job.columns[column_index].strip()[:_MAX_FIELD_LENGTH],
            message=problem.message,
            params={name: str(value) for name, value in problem.params.items()},
            cells=[cell[:_MAX_CELL_LENGTH] for cell in row.cells[:50]],
        )
    )


def _uploading_actor(session: Session, import_job: OfflineImport) -> Actor:
    """The uploader with their present permissions. Raises NotFound when the user is deleted or locked."""
    user = session.get(User, import_job.created_by) if import_job.created_by else None
    if user is None or user.locked_at is not None:
        raise NotFound(N_("Whoever uploaded this file may not do so any more."))
    return Actor.of_user(user)


def _finish_import(import_id: int, error: str = "") -> None:
    with db.transaction() as session:
        import_job = get_import(session, import_id)
        if import_job.finished_at is None:
            import_job.finished_at, import_job.error = clock.now(), error


def _field_indexes(columns: Sequence[str]) -> dict[str, int]:
    """The column index of each field; the first one when two columns name the same field."""
    indexes: dict[str, int] = {}
    for index, name in enumerate(columns):
        field = COLUMN_ALIASES.get(name.strip().lower())
        if field is not None:
            indexes.setdefault(field, index)
    return indexes


def _safe_filename(filename: str) -> str:
    name = PurePath(filename.replace("\\", "/")).name
    return "".join(char for char in name if char.isprintable())[:200] or "conversions.csv"
