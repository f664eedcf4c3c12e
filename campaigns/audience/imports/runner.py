"""Worker side of an import: dry run and import, restartable after a crash at any point.

A run owns its transactions. Each chunk is merged in one transaction together with the import's progress, so a
crash loses and repeats nothing; the next run continues after the last committed chunk. ``claimed_at`` is the
lease: every write compares it, and a worker whose lease was taken over stops before it writes.
"""

import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from datetime import datetime, timedelta
from itertools import islice
from typing import Any

from sqlalchemy import ColumnElement, Connection, and_, or_, select, update
from sqlalchemy.exc import OperationalError
from sqlalchemy.orm import Session

from campaigns import clock, db
from campaigns.accounts.models import User
from campaigns.audience.imports import files
from campaigns.audience.imports.csv_reader import read_rows
from campaigns.audience.imports.row_cleaning import ParsedRow, RowParser
from campaigns.audience.imports.service import FILE_GONE
from campaigns.audience.imports.sql import staged
from campaigns.audience.imports.staging import StagingFile, open_staging_file, write_staging_file
from campaigns.audience.imports.upsert import (
    ImportCounts,
    ImportOptions,
    PreparedChunk,
    RejectedRow,
    merge_chunk,
    prepare_chunk,
    preview_chunk,
)
from campaigns.audience.models import ContactImport, ImportState
from campaigns.errors import Conflict, KampaniaError
from campaigns.i18n import N_

CHUNK_ROWS = 5_000
"""Rows per transaction: small enough that other writers (SQLite has one) are not blocked for long."""
LEASE = timedelta(seconds=30)
"""A worker that has not renewed its claim for this long is considered dead. It must exceed the time of one chunk."""
MAX_SHOWN_PROBLEMS = 20
_PROGRESS_INTERVAL = 2.0

_RUNNABLE_STATES = (ImportState.CHECKING, ImportState.RUNNING)
_log = logging.getLogger(__name__)


class _ClaimLost(Exception):
    """Raised when another worker has taken over the import."""


def due_imports(session: Session) -> list[int]:
    """Return the ids of imports that wait for a worker, oldest first."""
    free = or_(ContactImport.claimed_at.is_(None), ContactImport.claimed_at < clock.now() - LEASE)
    due = select(ContactImport.id).where(ContactImport.state.in_(_RUNNABLE_STATES), free).order_by(ContactImport.id)
    return list(session.scalars(due))


def run(import_id: int) -> None:
    """Run a dry run or an import from where it stopped. Does nothing when another worker holds the claim."""
    job = _ImportJob.claim(import_id)
    if job is None:
        return
    try:
        job.run()
    except _ClaimLost:
        _log.warning("import %s was taken over by another worker", import_id)
    except KampaniaError as error:
        job.fail(error.message)
    except OperationalError:
        raise  # database unavailable: the lease expires and a later tick continues
    except Exception:
        _log.exception("import %s", import_id)
        job.fail(N_("Something unexpected stopped the import. The log has more; what was imported stays."))


class _ImportJob:
    def __init__(self, contact_import: ContactImport, recorded_by: str, claimed_at: datetime) -> None:
        self.contact_import = contact_import
        self.recorded_by = recorded_by
        self.claimed_at = claimed_at
        self.progress_at = time.monotonic()

    @classmethod
    def claim(cls, import_id: int) -> "_ImportJob | None":
        with db.transaction() as session:
            now = clock.now()
            claimed_id = session.scalar(
                update(ContactImport)
                .where(
                    ContactImport.id == import_id,
                    ContactImport.state.in_(_RUNNABLE_STATES),
                    or_(ContactImport.claimed_at.is_(None), ContactImport.claimed_at < now - LEASE),
                )
                .values(claimed_at=now)
                .returning(ContactImport.id)
                .execution_options(synchronize_session=False)
            )
            if claimed_id is None:
                return None
            contact_import = session.get_one(ContactImport, import_id)
            person = session.get(User, contact_import.created_by) if contact_import.created_by else None
            return cls(contact_import, person.name if person else "import", now)

    @property
    def is_dry_run(self) -> bool:
        return self.contact_import.state is ImportState.CHECKING

    def run(self) -> None:
        engine = db.engine().execution_options(read_only=self.is_dry_run)
        with self.open_staging() as staging, engine.connect() as connection:
            with db.engine().begin() as progress_connection:
                self.save_progress(
                    progress_connection,
                    rows_total=staging.total,
                    rows_read=0 if self.is_dry_run else self.contact_import.rows_read,
                )
            with connection.begin():
                staged.create(connection, checkfirst=False)
            try:
                self.run_dry_run(staging, connection) if self.is_dry_run else self.run_import(staging, connection)
            finally:
                connection.invalidate()  # drops the connection and with it the temporary table
        if not self.is_dry_run:
            files.delete_staging_files(self.contact_import.content_key)

    def run_dry_run(self, staging: StagingFile, connection: Connection) -> None:
        problems: list[RejectedRow] = []
        counts = ImportCounts()
        for position, prepared in self.chunks(staging, 0):
            with connection.begin():
                chunk_counts, rejected = preview_chunk(connection, self.options(), prepared)
            counts += chunk_counts
            problems = sorted([*problems, *rejected], key=lambda one: one.row)[:MAX_SHOWN_PROBLEMS]
            with db.engine().begin() as progress_connection:
                self.save_progress(progress_connection, rows_read=position)
        with db.engine().begin() as progress_connection:
            shown = [asdict(one) for one in problems]
            self.finish(progress_connection, ImportState.CHECKED, problems=shown, **counts.counts())

    def run_import(self, staging: StagingFile, connection: Connection) -> None:
        for position, prepared in self.chunks(staging, self.contact_import.rows_read):
            with connection.begin():
                self.lock_claim(connection)
                chunk_counts = merge_chunk(connection, self.options(), prepared)
                added = {name: getattr(ContactImport, name) + count for name, count in chunk_counts.counts().items()}
                self.save_progress(connection, rows_read=position, **added)
        with connection.begin():
            self.finish(connection, ImportState.DONE)

    def chunks(self, staging: StagingFile, position: int) -> Iterator[tuple[int, PreparedChunk]]:
        """Yield (position after the chunk, prepared chunk); preparing happens outside of any transaction."""
        while chunk := staging.rows(position, CHUNK_ROWS):
            position += len(chunk)
            yield position, prepare_chunk(self.contact_import.id, chunk)

    def options(self) -> ImportOptions:
        contact_import = self.contact_import
        return ImportOptions(
            import_id=contact_import.id,
            list_id=contact_import.list_id,
            email_consent=contact_import.email_consent,
            tracking_consent=contact_import.tracking_consent,
            wording=contact_import.consent_wording,
            source=contact_import.consent_source or contact_import.filename,
            recorded_by=self.recorded_by,
            at=clock.now(),
        )

    @contextmanager
    def open_staging(self) -> Iterator[StagingFile]:
        path = files.staging_path(self.contact_import.content_key)
        if self.is_dry_run or not path.exists():
            write_staging_file(path, self.parsed_rows(), self.report_rows_read)
        with open_staging_file(path) as staging:
            if (
                not self.is_dry_run
                and self.contact_import.rows_read
                and staging.total != self.contact_import.rows_total
            ):
                raise Conflict(N_("The file is not the one that this import began with."))
            yield staging

    def parsed_rows(self) -> Iterator[ParsedRow]:
        path = files.upload_path(self.contact_import.content_key)
        if not path.exists():
            raise Conflict(FILE_GONE)
        parse = RowParser(self.contact_import.mapping).parse
        records = read_rows(path, self.contact_import.encoding, self.contact_import.delimiter)
        yield from map(parse, islice(records, 1 if self.contact_import.has_header else 0, None))

    def report_rows_read(self, count: int) -> None:
        if time.monotonic() - self.progress_at > _PROGRESS_INTERVAL:
            with db.engine().begin() as progress_connection:
                self.save_progress(progress_connection, **({"rows_read": count} if self.is_dry_run else {}))

    def lock_claim(self, connection: Connection) -> None:
        """Lock the import's row until the chunk is committed; on SQLite, being the one writer has the same effect."""
        locked = select(ContactImport.id).where(self.claim_condition()).with_for_update()
        if connection.scalar(locked) is None:
            raise _ClaimLost

    def claim_condition(self) -> ColumnElement[bool]:
        contact_import = self.contact_import
        return and_(
            ContactImport.id == contact_import.id,
            ContactImport.state == contact_import.state,
            ContactImport.claimed_at == self.claimed_at,
        )

    def save_progress(self, connection: Connection, **values: Any) -> None:
        """Write progress and renew the claim."""
        now = clock.now()
        self.update_claimed(connection, claimed_at=now, **values)
        self.claimed_at, self.progress_at = now, time.monotonic()

    def finish(self, connection: Connection, state: ImportState, **values: Any) -> None:
        self.update_claimed(connection, state=state, claimed_at=None, finished_at=clock.now(), **values)

    def fail(self, message: str) -> None:
        """End with an error: a dry run returns to UPLOADED (editable mapping), an import can be restarted."""
        state = ImportState.UPLOADED if self.is_dry_run else ImportState.FAILED
        with db.engine().begin() as connection:
            self.finish(connection, state, error=message)

    def update_claimed(self, connection: Connection, **values: Any) -> None:
        written = connection.execute(update(ContactImport).where(self.claim_condition()).values(values))
        if written.rowcount != 1:
            raise _ClaimLost
