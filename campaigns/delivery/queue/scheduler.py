"""Due work of delivery, found by the scheduler's tick.

Each tick makes the time-based state changes and returns the activities that need a worker. The rows are the queue: a
lost wake-up is repeated by the next tick.
"""

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass

from sqlalchemy import Exists, exists, select, update
from sqlalchemy.orm import Session

from campaigns import clock, db, retries
from campaigns.accounts.actor import SYSTEM
from campaigns.delivery.models import EXPIRED, OPEN_STATES, WAITING_STATES, Send, SendState
from campaigns.delivery.queue import leases
from campaigns.delivery.relays import availability
from campaigns.delivery.transactional import outbox_dispatch
from campaigns.errors import Conflict
from campaigns.planning import launch
from campaigns.planning.models import Activity, ActivityStatus, Channel, EmailDetails
from campaigns.retries import JobType

_ENDED = (ActivityStatus.FINISHED, ActivityStatus.CANCELLED)
_LIVE_EMAIL = Activity.status == ActivityStatus.LIVE, Activity.channel == Channel.EMAIL


@dataclass(frozen=True, slots=True)
class DueWork:
    """Ids of activities that need a worker: ``expand`` their audience, ``deliver`` their due sends."""

    expand: Sequence[int]
    deliver: Sequence[int]
    urgent: frozenset[int] = frozenset()
    """The built-in ones of ``deliver`` (test and system mail), which go to a queue of their own ahead of launches."""


def find_due_work() -> DueWork:
    """Take over dead workers' sends, make the time-based changes, and return the work that is due now."""
    leases.take_over()
    with db.read_only_session() as session:
        # Most ticks find nothing; they must not take SQLite's only write lock.
        has_changes = (
            launch.due_launches(session) or outbox_dispatch.has_waiting_mail(session) or ended_with_open_sends(session)
        )
        has_changes = has_changes or past_stop_time(session) or ready_to_finish(session)
    if has_changes:
        with db.transaction() as session:
            apply_due_changes(session)
    with db.read_only_session() as session:
        waiting = with_due_sends(session) if availability.any_usable(session) else []
        return DueWork(unexpanded(session), waiting, filter_built_in(session, waiting))


def apply_due_changes(session: Session) -> None:
    """Make all changes that are due by time.

    Begins scheduled launches, turns outbox mails into sends, cancels the waiting and held sends of ended activities,
    fails the sends of activities past ``stop_after``, and finishes activities without open sends. Idempotent. A row
    that fails is backed off, the others continue.
    """
    launch.begin_due_launches(session)
    outbox_dispatch.queue_outbox_mail(session)
    retries.run_batch(
        session, JobType.CANCEL_REMAINING, ended_with_open_sends(session), lambda ids: _cancel(session, ids)
    )
    retries.run_batch(session, JobType.EXPIRE, past_stop_time(session), lambda ids: _expire(session, ids))
    retries.run_batch(session, JobType.FINISH, ready_to_finish(session), lambda ids: _finish(session, ids))


def _cancel(session: Session, activity_ids: Sequence[int]) -> None:
    session.execute(
        update(Send)
        .where(Send.activity_id.in_(activity_ids), Send.state.in_((*WAITING_STATES, SendState.HELD)))
        .values(state=SendState.CANCELLED, due_at=None, reason="")
        .execution_options(synchronize_session=False)
    )


def _expire(session: Session, activity_ids: Sequence[int]) -> None:
    session.execute(
        update(Send)
        .where(Send.activity_id.in_(activity_ids), Send.state.in_(WAITING_STATES))
        .values(state=SendState.FAILED, due_at=None, reason=EXPIRED)
        .execution_options(synchronize_session=False)
    )


def _finish(session: Session, activity_ids: Sequence[int]) -> None:
    for activity_id in activity_ids:
        with suppress(Conflict):  # Its status changed concurrently.
            launch.finish(session, SYSTEM, session.get_one(Activity, activity_id))


def _has_sends_in(*states: SendState) -> Exists:
    return exists().where(Send.activity_id == Activity.id, Send.state.in_(states))


def unexpanded(session: Session) -> list[int]:
    """Ids of live email activities whose audience is not completely expanded."""
    return _activity_ids(session, *_LIVE_EMAIL, EmailDetails.expanded_at.is_(None), Activity.built_in.is_(None))


def with_due_sends(session: Session) -> list[int]:
    """Ids of live email activities with due sends, sorted."""
    due = (
        exists().where(Send.activity_id == Activity.id, Send.state == s, Send.due_at <= clock.now())
        for s in WAITING_STATES
    )
    return sorted({activity_id for state in due for activity_id in _activity_ids(session, *_LIVE_EMAIL, state)})


def filter_built_in(session: Session, ids: Sequence[int]) -> frozenset[int]:
    """The ids among ``ids`` of built-in activities (test, system and API mail)."""
    return frozenset(_activity_ids(session, Activity.id.in_(ids), Activity.built_in.is_not(None)) if ids else ())


def ended_with_open_sends(session: Session) -> list[int]:
    """Ids of finished or cancelled activities that still have waiting or held sends."""
    return _activity_ids(
        session,
        Activity.status.in_(_ENDED),
        Activity.channel == Channel.EMAIL,
        _has_sends_in(*WAITING_STATES, SendState.HELD),
    )


def past_stop_time(session: Session) -> list[int]:
    """Ids of activities past ``stop_after`` with waiting sends. Claimed sends still get their result."""
    past_stop = (
        EmailDetails.stop_after <= clock.now(),
        Activity.status.in_((ActivityStatus.LIVE, ActivityStatus.PAUSED)),
    )
    return _activity_ids(
        session,
        *past_stop,
        Activity.channel == Channel.EMAIL,
        Activity.built_in.is_(None),
        _has_sends_in(*WAITING_STATES),
    )


def ready_to_finish(session: Session) -> list[int]:
    """Ids of live, completely expanded activities without open sends."""
    return _activity_ids(
        session,
        *_LIVE_EMAIL,
        Activity.built_in.is_(None),
        EmailDetails.expanded_at.is_not(None),
        ~_has_sends_in(*OPEN_STATES),
    )


def _activity_ids(session: Session, *where: object) -> list[int]:
    return list(session.scalars(select(Activity.id).join(EmailDetails).where(*where).order_by(Activity.id)))  # type: ignore[arg-type]
