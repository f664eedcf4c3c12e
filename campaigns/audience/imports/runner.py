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
from campaigns.audience.imports.csv_reader import rows
from campaigns.audience.imports.row_cleaning import ParsedRow, RowParser
from campaigns.audience.imports.service import FILE_GONE
from campaigns.audience.imports.sql import staged
from campaigns.audience.imports.staging import StagingFile, opened, stage
from campaigns.audience.imports.upsert import (
    ImportCounts,
    ImportOptions,
    Prepared,
    RejectedRow,
    foretell,
    merge,
    prepare,
)
from campaigns.audience.models import ContactImport, ImportState
from campaigns.errors import Conflict, KampaniaError
from campaigns.i18n import N_

CHUNK = 5_000
"""Rows per transaction: small enough that other writers (SQLite has one) are not blocked for long."""
LEASE = timedelta(seconds=30)
"""A worker that has not renewed its claim for this long is considered dead. It must exceed the time of one chunk."""
SHOWN_PROBLEMS = 20
_NOTE_EVERY = 2.0

_WAITING = (ImportState.CHECKING, ImportState.RUNNING)
_log = logging.getLogger(__name__)


class _ClaimLost(Exception):
    """Raised when another worker has taken over the import."""


def due_imports(session: Session) -> list[int]:
    """Return the ids of imports that wait for a worker, oldest first."""
    free = or_(ContactImport.claimed_at.is_(None), ContactImport.claimed_at < clock.now() - LEASE)
    due = select(ContactImport.id).where(ContactImport.state.in_(_WAITING), free).order_by(ContactImport.id)
    return list(session.scalars(due))


def run(import_id: int) -> None:
    """Run a dry run or an import from where it stopped. Does nothing when another worker holds the claim."""
    work = _ImportJob.claimed(import_id)
    if work is None:
        return
    try:
        work.go()
    except _ClaimLost:
        _log.warning("import %s was taken over by another worker", import_id)
    except KampaniaError as error:
        work.fail(error.message)
    except OperationalError:
        raise  # database unavailable: the lease expires and a later tick continues
    except Exception:
        _log.exception("import %s", import_id)
        work.fail(N_("Something unexpected stopped the import. The log has more; what was imported stays."))


class _ImportJob:
    def __init__(self, found: ContactImport, recorded_by: str, mine: datetime) -> None:
        self.found = found
        self.recorded_by = recorded_by
        self.mine = mine
        self.noted = time.monotonic()

    @classmethod
    def claimed(cls, import_id: int) -> "_ImportJob | None":
        with db.transaction() as session:
            now = clock.now()
            taken = session.scalar(
                update(ContactImport)
                .where(
                    ContactImport.id == import_id,
                    ContactImport.state.in_(_WAITING),
                    or_(ContactImport.claimed_at.is_(None), ContactImport.claimed_at < now - LEASE),
                )
                .values(claimed_at=now)
                .returning(ContactImport.id)
                .execution_options(synchronize_session=False)
            )
            if taken is None:
                return None
            found = session.get_one(ContactImport, import_id)
            person = session.get(User, found.created_by) if found.created_by else None
            return cls(found, person.name if person else "import", now)

    @property
    def dry(self) -> bool:
        return self.found.state is ImportState.CHECKING

    def go(self) -> None:
        engine = db.engine().execution_options(read_only=self.dry)
        with self.staged_rows() as stage, engine.connect() as connection:
            with db.engine().begin() as beside:
                self.note(beside, rows_total=stage.total, rows_read=0 if self.dry else self.found.rows_read)
            with connection.begin():
                staged.create(connection, checkfirst=False)
            try:
                self.check(stage, connection) if self.dry else self.merge(stage, connection)
            finally:
                connection.invalidate()  # drops the connection and with it the temporary table
        if not self.dry:
            files.forget_stage(self.found.content_key)

    def check(self, stage: StagingFile, connection: Connection) -> None:
        problems: list[RejectedRow] = []
        counts = ImportCounts()
        for place, prepared in self.chunks(stage, 0):
            with connection.begin():
                tally, rejected = foretell(connection, self.terms(), prepared)
            counts += tally
            problems = sorted([*problems, *rejected], key=lambda one: one.row)[:SHOWN_PROBLEMS]
            with db.engine().begin() as beside:
                self.note(beside, rows_read=place)
        with db.engine().begin() as beside:
            shown = [asdict(one) for one in problems]
            self.end(beside, ImportState.CHECKED, problems=shown, **counts.counts())

    def merge(self, stage: StagingFile, connection: Connection) -> None:
        for place, prepared in self.chunks(stage, self.found.rows_read):
            with connection.begin():
                self.hold(connection)
                tally = merge(connection, self.terms(), prepared)
                added = {name: getattr(ContactImport, name) + count for name, count in tally.counts().items()}
                self.note(connection, rows_read=place, **added)
        with connection.begin():
            self.end(connection, ImportState.DONE)

    def chunks(self, stage: StagingFile, place: int) -> Iterator[tuple[int, Prepared]]:
        """Yield (position after the chunk, prepared chunk); preparing happens outside of any transaction."""
        while chunk := stage.rows(place, CHUNK):
            place += len(chunk)
            yield place, prepare(self.found.id, chunk)

    def terms(self) -> ImportOptions:
        found = self.found
        return ImportOptions(
            import_id=found.id,
            list_id=found.list_id,
            email_consent=found.email_consent,
            tracking_consent=found.tracking_consent,
            wording=found.consent_wording,
            source=found.consent_source or found.filename,
            recorded_by=self.recorded_by,
            at=clock.now(),
        )

    @contextmanager
    def staged_rows(self) -> Iterator[StagingFile]:
        path = files.stage_of(self.found.content_key)
        if self.dry or not path.exists():
            stage(path, self.cleaned(), self.read_so_far)
        with opened(path) as found:
            if not self.dry and self.found.rows_read and found.total != self.found.rows_total:
                raise Conflict(N_("The file is not the one that this import began with."))
            yield found

    def cleaned(self) -> Iterator[ParsedRow]:
        path = files.path_of(self.found.content_key)
        if not path.exists():
            raise Conflict(FILE_GONE)
        clean = RowParser(self.found.mapping).clean
        records = rows(path, self.found.encoding, self.found.delimiter)
        yield from map(clean, islice(records, 1 if self.found.has_header else 0, None))

    def read_so_far(self, count: int) -> None:
        if time.monotonic() - self.noted > _NOTE_EVERY:
            with db.engine().begin() as beside:
                self.note(beside, **({"rows_read": count} if self.dry else {}))

    def hold(self, connection: Connection) -> None:
        """Lock the import's row until the chunk is committed; on SQLite, being the one writer has the same effect."""
        held = select(ContactImport.id).where(self.still_mine()).with_for_update()
        if connection.scalar(held) is None:
            raise _ClaimLost

    def still_mine(self) -> ColumnElement[bool]:
        found = self.found
        return and_(
            ContactImport.id == found.id, ContactImport.state == found.state, ContactImport.claimed_at == self.mine
        )

    def note(self, connection: Connection, **values: Any) -> None:
        """Write progress and renew the claim."""
        now = clock.now()
        self.write(connection, claimed_at=now, **values)
        self.mine, self.noted = now, time.monotonic()

    def end(self, connection: Connection, state: ImportState, **values: Any) -> None:
        self.write(connection, state=state, claimed_at=None, finished_at=clock.now(), **values)

    def fail(self, message: str) -> None:
        """End with an error: a dry run returns to UPLOADED (editable mapping), an import can be restarted."""
        state = ImportState.UPLOADED if self.dry else ImportState.FAILED
        with db.engine().begin() as connection:
            self.end(connection, state, error=message)

    def write(self, connection: Connection, **values: Any) -> None:
        written = connection.execute(update(ContactImport).where(self.still_mine()).values(values))
        if written.rowcount != 1:
            raise _ClaimLost
