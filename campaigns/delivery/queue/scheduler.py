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
from campaigns.delivery.models import EXPIRED, OPEN, WAITING, Send, SendState
from campaigns.delivery.queue import leases
from campaigns.delivery.relays import availability
from campaigns.delivery.transactional import outbox_dispatch
from campaigns.errors import Conflict
from campaigns.planning import launch
from campaigns.planning.models import Activity, ActivityStatus, Channel, EmailDetails
from campaigns.retries import JobType

_OVER = (ActivityStatus.FINISHED, ActivityStatus.CANCELLED)
_LIVE = Activity.status == ActivityStatus.LIVE, Activity.channel == Channel.EMAIL


@dataclass(frozen=True, slots=True)
class DueWork:
    """Ids of activities that need a worker: ``expand`` their audience, ``deliver`` their due sends."""

    expand: Sequence[int]
    deliver: Sequence[int]
    urgent: frozenset[int] = frozenset()
    """The built-in ones of ``deliver`` (test and system mail), which go to a queue of their own ahead of launches."""


def find() -> DueWork:
    """Take over dead workers' sends, make the time-based changes, and return the work that is due now."""
    leases.take_over()
    with db.reading() as session:
        # Most ticks find nothing; they must not take SQLite's only write lock.
        changes = launch.due_launches(session) or outbox_dispatch.waiting(session) or left_over(session)
        changes = changes or expired(session) or done(session)
    if changes:
        with db.transaction() as session:
            settle(session)
    with db.reading() as session:
        waiting = sendable(session) if availability.may_ask(session) else []
        return DueWork(unexpanded(session), waiting, built_in(session, waiting))


def settle(session: Session) -> None:
    """Make all changes that are due by time.

    Begins scheduled launches, turns outbox mails into sends, cancels the waiting and held sends of ended activities,
    fails the sends of activities past ``stop_after``, and finishes activities without open sends. Idempotent. A row
    that fails is backed off, the others continue.
    """
    launch.begin_due(session)
    outbox_dispatch.post_outbox(session)
    retries.carry(session, JobType.CANCEL_REMAINING, left_over(session), lambda ids: _cancel(session, ids))
    retries.carry(session, JobType.EXPIRE, expired(session), lambda ids: _expire(session, ids))
    retries.carry(session, JobType.FINISH, done(session), lambda ids: _finish(session, ids))


def _cancel(session: Session, activity_ids: Sequence[int]) -> None:
    session.execute(
        update(Send)
        .where(Send.activity_id.in_(activity_ids), Send.state.in_((*WAITING, SendState.HELD)))
        .values(state=SendState.CANCELLED, due_at=None, reason="")
        .execution_options(synchronize_session=False)
    )


def _expire(session: Session, activity_ids: Sequence[int]) -> None:
    session.execute(
        update(Send)
        .where(Send.activity_id.in_(activity_ids), Send.state.in_(WAITING))
        .values(state=SendState.FAILED, due_at=None, reason=EXPIRED)
        .execution_options(synchronize_session=False)
    )


def _finish(session: Session, activity_ids: Sequence[int]) -> None:
    for activity_id in activity_ids:
        with suppress(Conflict):  # Its status changed concurrently.
            launch.finish(session, SYSTEM, session.get_one(Activity, activity_id))


def _has(*states: SendState) -> Exists:
    return exists().where(Send.activity_id == Activity.id, Send.state.in_(states))


def unexpanded(session: Session) -> list[int]:
    """Ids of live email activities whose audience is not completely expanded."""
    return _ids(session, *_LIVE, EmailDetails.expanded_at.is_(None), Activity.built_in.is_(None))


def sendable(session: Session) -> list[int]:
    """Ids of live email activities with due sends, sorted."""
    due = (
        exists().where(Send.activity_id == Activity.id, Send.state == s, Send.due_at <= clock.now()) for s in WAITING
    )
    return sorted({activity_id for state in due for activity_id in _ids(session, *_LIVE, state)})


def built_in(session: Session, ids: Sequence[int]) -> frozenset[int]:
    """The ids among ``ids`` of built-in activities (test, system and API mail)."""
    return frozenset(_ids(session, Activity.id.in_(ids), Activity.built_in.is_not(None)) if ids else ())


def left_over(session: Session) -> list[int]:
    """Ids of finished or cancelled activities that still have waiting or held sends."""
    return _ids(session, Activity.status.in_(_OVER), Activity.channel == Channel.EMAIL, _has(*WAITING, SendState.HELD))


def expired(session: Session) -> list[int]:
    """Ids of activities past ``stop_after`` with waiting sends. Claimed sends still get their result."""
    over = EmailDetails.stop_after <= clock.now(), Activity.status.in_((ActivityStatus.LIVE, ActivityStatus.PAUSED))
    return _ids(session, *over, Activity.channel == Channel.EMAIL, Activity.built_in.is_(None), _has(*WAITING))


def done(session: Session) -> list[int]:
    """Ids of live, completely expanded activities without open sends."""
    return _ids(session, *_LIVE, Activity.built_in.is_(None), EmailDetails.expanded_at.is_not(None), ~_has(*OPEN))


def _ids(session: Session, *where: object) -> list[int]:
    return list(session.scalars(select(Activity.id).join(EmailDetails).where(*where).order_by(Activity.id)))  # type: ignore[arg-type]
