"""Retry bookkeeping for background jobs: a failing row is backed off, the rest of the batch continues.

A failure is shown on the health page until it has expired.
"""

import logging
from collections.abc import Callable, Iterable, Sequence
from datetime import timedelta
from enum import StrEnum
from typing import TypeVar

from sqlalchemy import String, delete, select
from sqlalchemy.exc import DBAPIError, OperationalError
from sqlalchemy.orm import Mapped, Session, mapped_column

from campaigns import clock, db
from campaigns.db import Base, Instant, string_enum
from campaigns.i18n import N_

T = TypeVar("T")
_log = logging.getLogger(__name__)
_FIRST_BACKOFF = timedelta(seconds=10)
_MAX_BACKOFF = timedelta(hours=1)
_FAILURE_LIFETIME = 2 * _MAX_BACKOFF
"""A subject that still fails is tried again within ``_MAX_BACKOFF``, so an older failure is resolved."""


class JobType(StrEnum):
    """A kind of background job that works on one row after another. The values are stored in the database."""

    START_LAUNCH = "start launch"
    QUEUE_SYSTEM_MAIL = "queue system mail"
    CANCEL_REMAINING = "cancel remaining"
    EXPIRE = "expire"
    FINISH = "finish"
    RECOVER_BATCH = "recover batch"
    EXPAND_AUDIENCE = "expand audience"
    DELIVER = "deliver"
    FINALISE_LABEL = "finalise label"
    LINK_SUBMISSION = "link submission"
    CONVERT_SUBMISSION = "convert submission"
    RECORD_LEAD_CONVERSION = "convert lead"
    RECOMPUTE_CREDIT = "recompute credit"
    MATCH_EVENT = "match event"
    MATCH_STAGE = "match stage"
    MATCH_FORM = "match form"
    MATCH_PAGE = "match page"
    IMPORT_CONVERSIONS = "import conversions"
    PROCESS_BOUNCE = "process bounce"
    RUN_MAINTENANCE = "run maintenance"

    @property
    def label(self) -> str:
        return {
            self.START_LAUNCH: N_("Begin the scheduled launch of activity %(subject)s"),
            self.QUEUE_SYSTEM_MAIL: N_("Queue system mail %(subject)s"),
            self.CANCEL_REMAINING: N_("Cancel what activity %(subject)s left over"),
            self.EXPIRE: N_("Stop sending activity %(subject)s, whose time is over"),
            self.FINISH: N_("Finish activity %(subject)s"),
            self.RECOVER_BATCH: N_("Take over batch %(subject)s of a worker that died"),
            self.EXPAND_AUDIENCE: N_("List the recipients of activity %(subject)s"),
            self.DELIVER: N_("Send the mails of activity %(subject)s"),
            self.FINALISE_LABEL: N_("Say of hit %(subject)s who made it"),
            self.LINK_SUBMISSION: N_("Find the click that led to submission %(subject)s"),
            self.CONVERT_SUBMISSION: N_("Count submission %(subject)s as a conversion"),
            self.RECORD_LEAD_CONVERSION: N_("Count lead %(subject)s as a conversion"),
            self.RECOMPUTE_CREDIT: N_("Credit conversion %(subject)s anew"),
            self.MATCH_EVENT: N_("Find the goals that event %(subject)s reaches"),
            self.MATCH_STAGE: N_("Find the goals that lead %(subject)s reaches"),
            self.MATCH_PAGE: N_("Find the goals that visit %(subject)s reaches"),
            self.PROCESS_BOUNCE: N_("Read what came back as %(subject)s"),
            self.RUN_MAINTENANCE: N_("Look over the log: %(subject)s"),
            self.IMPORT_CONVERSIONS: N_("Read the file of conversions %(subject)s"),
            self.MATCH_FORM: N_("Find the goals that submission %(subject)s reaches"),
        }[self]


class JobFailure(Base):
    """A subject (row) at which a job failed, and the time of the next attempt."""

    __tablename__ = "job_failures"

    job: Mapped[JobType] = mapped_column(string_enum(JobType), primary_key=True)
    subject: Mapped[str] = mapped_column(String(80), primary_key=True)
    error: Mapped[str] = mapped_column(String(300))
    failures: Mapped[int] = mapped_column(default=0)
    """Consecutive failures."""
    failed_at: Mapped[Instant]
    retry_at: Mapped[Instant]


def backed_off_subjects(session: Session, job: JobType) -> list[str]:
    """The subjects that are backed off at the moment."""
    backed_off = select(JobFailure.subject).where(JobFailure.job == job, JobFailure.retry_at > clock.now())
    return list(session.scalars(backed_off))


def failed_subjects(session: Session, job: JobType) -> list[str]:
    """Every subject at which the job failed, including those that may be tried again now."""
    return list(session.scalars(select(JobFailure.subject).where(JobFailure.job == job)))


def run_batch(
    session: Session, job: JobType, ids: Sequence[int], act: Callable[[Sequence[int]], Iterable[T] | None]
) -> list[T]:
    """Call ``act`` with those of ``ids`` that are not backed off; returns its results in the order of ``ids``.

    ``act`` runs in a savepoint. When it raises, both halves of the batch are tried separately, down to the single row
    that fails, which is backed off. Errors of the database connection are raised, not recorded.
    """
    failures = {row.subject: row for row in session.scalars(select(JobFailure).where(JobFailure.job == job))}
    now = clock.now()
    due = [one for one in ids if (row := failures.get(str(one))) is None or row.retry_at <= now]
    return _run_bisecting(session, job, due, act, failures) if due else []


def _run_bisecting(
    session: Session,
    job: JobType,
    ids: Sequence[int],
    act: Callable[[Sequence[int]], Iterable[T] | None],
    failures: dict[str, JobFailure],
) -> list[T]:
    try:
        with session.begin_nested():
            results = list(act(ids) or ())
    except Exception as error:
        if _is_database_unavailable(error):
            raise
        if len(ids) == 1:
            _record_failure(session, job, str(ids[0]), error)
            return []
        middle = len(ids) // 2
        return [
            one for half in (ids[:middle], ids[middle:]) for one in _run_bisecting(session, job, half, act, failures)
        ]
    for subject in failures.keys() & {str(one) for one in ids}:
        session.delete(failures[subject])
    return results


def run_one(job: JobType, subject: object, act: Callable[[], object]) -> None:
    """Call ``act``, which owns its transactions, for one subject, unless that subject is backed off."""
    with db.read_only_session() as session:
        failure = session.get(JobFailure, (job, str(subject)))
    if failure is not None and failure.retry_at > clock.now():
        return
    try:
        act()
    except Exception as error:
        if _is_database_unavailable(error):
            raise
        with db.transaction() as session:
            _record_failure(session, job, str(subject), error)
    else:
        if failure is not None:
            with db.transaction() as session:
                session.execute(delete(JobFailure).where(JobFailure.job == job, JobFailure.subject == str(subject)))


def _is_database_unavailable(error: Exception) -> bool:
    """Whether the database is unavailable or busy, which is no fault of the row."""
    return isinstance(error, OperationalError) or (isinstance(error, DBAPIError) and error.connection_invalidated)


def _record_failure(session: Session, job: JobType, subject: str, error: Exception) -> None:
    _log.error("%s %s failed and is backed off", job, subject, exc_info=error)
    now = clock.now()
    row = session.get(JobFailure, (job, subject[:80])) or JobFailure(job=job, subject=subject[:80], failures=0)
    row.failures += 1
    row.error = f"{type(error).__name__}: {error}".partition("\n")[0].replace("\x00", "")[:300]
    row.failed_at = now
    row.retry_at = now + min(_FIRST_BACKOFF * 2 ** min(row.failures - 1, 20), _MAX_BACKOFF)
    session.merge(row)
    session.flush()


def current_failures(session: Session) -> list[JobFailure]:
    """Current failures, newest first, 100 at most."""
    recent = select(JobFailure).where(JobFailure.failed_at > clock.now() - _FAILURE_LIFETIME)
    return list(
        session.scalars(recent.order_by(JobFailure.failed_at.desc(), JobFailure.job, JobFailure.subject).limit(100))
    )


def purge_expired(session: Session) -> None:
    """Delete expired failures; called by the maintenance task."""
    session.execute(delete(JobFailure).where(JobFailure.failed_at <= clock.now() - _FAILURE_LIFETIME))
