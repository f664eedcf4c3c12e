"""What the tick finds: everything in delivery that waits for the clock."""

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
    """Ids of activities that need a worker."""

    expand: Sequence[int]
    deliver: Sequence[int]
    urgent: frozenset[int] = frozenset()
    """Those of ``deliver`` that no launch may hold up: test and system mail."""


def find() -> DueWork:
    """Settle what the clock decides by itself, and say which activities need a worker now."""
    leases.take_over()
    with db.reading() as session:
        # Most ticks find nothing, and then don't ask for SQLite's only writer.
        changes = launch.due_launches(session) or outbox_dispatch.waiting(session) or left_over(session)
        changes = changes or expired(session) or done(session)
    if changes:
        with db.transaction() as session:
            settle(session)
    with db.reading() as session:
        waiting = sendable(session) if availability.may_ask(session) else []
        return DueWork(unexpanded(session), waiting, built_in(session, waiting))


def settle(session: Session) -> None:
    """Begin scheduled launches, take in system mail, cancel what a finished or cancelled activity
    left over, fail what came too late, and finish activities that are done. Harmless when repeated; a row
    that fails is put off."""
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
        with suppress(Conflict):  # Somebody was faster.
            launch.finish(session, SYSTEM, session.get_one(Activity, activity_id))


def _has(*states: SendState) -> Exists:
    return exists().where(Send.activity_id == Activity.id, Send.state.in_(states))


def unexpanded(session: Session) -> list[int]:
    """Live mailings whose audience is not (all) there yet."""
    return _ids(session, *_LIVE, EmailDetails.expanded_at.is_(None), Activity.built_in.is_(None))


def sendable(session: Session) -> list[int]:
    """Activities with sends that are due, of which they may send."""
    due = (
        exists().where(Send.activity_id == Activity.id, Send.state == s, Send.due_at <= clock.now()) for s in WAITING
    )
    return sorted({activity_id for state in due for activity_id in _ids(session, *_LIVE, state)})


def built_in(session: Session, ids: Sequence[int]) -> frozenset[int]:
    """Those of ``ids`` that are the house's own activities."""
    return frozenset(_ids(session, Activity.id.in_(ids), Activity.built_in.is_not(None)) if ids else ())


def left_over(session: Session) -> list[int]:
    """Activities that are over and still have somebody waiting."""
    return _ids(session, Activity.status.in_(_OVER), Activity.channel == Channel.EMAIL, _has(*WAITING, SendState.HELD))


def expired(session: Session) -> list[int]:
    """Activities whose time to send is over while somebody waits. Claimed ones still get their outcome."""
    over = EmailDetails.stop_after <= clock.now(), Activity.status.in_((ActivityStatus.LIVE, ActivityStatus.PAUSED))
    return _ids(session, *over, Activity.channel == Channel.EMAIL, Activity.built_in.is_(None), _has(*WAITING))


def done(session: Session) -> list[int]:
    """Live mailings with nothing left to do."""
    return _ids(session, *_LIVE, Activity.built_in.is_(None), EmailDetails.expanded_at.is_not(None), ~_has(*OPEN))


def _ids(session: Session, *where: object) -> list[int]:
    return list(session.scalars(select(Activity.id).join(EmailDetails).where(*where).order_by(Activity.id)))  # type: ignore[arg-type]
