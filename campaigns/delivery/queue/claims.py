"""Which worker owns which sends.

A claim is a compare-and-swap in one transaction. It holds for a lease (:mod:`campaigns.delivery.queue.leases`).
"""

from collections.abc import Sequence
from functools import lru_cache
from operator import itemgetter

from sqlalchemy import Integer, bindparam, case, false, select, true, update
from sqlalchemy.orm import Session

from campaigns import clock, db
from campaigns.audience import consent
from campaigns.audience.models import ConsentLevel, ConsentPurpose, Contact
from campaigns.delivery.models import Send, SendState, SkipReason
from campaigns.delivery.queue import payload
from campaigns.delivery.queue.leases import LEASE
from campaigns.delivery.queue.payload import Row
from campaigns.delivery.queue.skips import refusal, skip
from campaigns.delivery.sends import frequency_cap, send_windows
from campaigns.outbox import OutboxMail
from campaigns.planning.models import Activity, ActivityStatus

LARGEST = 1_000
_LOOKS = 10
"""Slices of sends outside of their window that one claim passes over."""


def claim(session: Session, activity_id: int, batch: str, limit: int) -> list[Row]:
    """Take up to ``limit`` due sends of a live activity for ``batch``; of each, in order of their ids, the columns
    that :func:`campaigns.delivery.queue.payload.load` makes its letter of.

    Whoever may not be mailed any more (suppressed, consent withdrawn since the audience was
    frozen) becomes skipped here, in the same transaction, and is not among them.
    """
    activity = session.get(Activity, activity_id, populate_existing=True)
    if activity is None or not _may_send(activity):
        return []
    taken: list[Row] = []
    for state in (SendState.QUEUED, SendState.DEFERRED):
        taken += _take(session, activity, state, batch, min(limit, LARGEST) - len(taken))
    enough = frequency_cap.over(session, batch, [row[_ID] for row in taken]) if activity.built_in is None else set()
    skip(session, enough, SkipReason.CAPPED)
    return sorted((row for row in taken if row[_ID] not in enough), key=itemgetter(_ID))


def may_send(session: Session, activity_id: int) -> bool:
    """Whether the activity is live and its time isn't over (the built-in ones always are)."""
    activity = session.get(Activity, activity_id, populate_existing=True)
    return activity is not None and _may_send(activity)


def _may_send(activity: Activity) -> bool:
    in_time = activity.email.stop_after is None or clock.now() < activity.email.stop_after
    return activity.built_in is not None or (activity.status is ActivityStatus.LIVE and in_time)


def _take(session: Session, activity: Activity, state: SendState, batch: str, limit: int) -> list[Row]:
    """Due sends whose window is open; those whose is closed wait for it from now on."""
    taken: list[Row] = []
    for _ in range(_LOOKS):
        rows = _next(session, activity, state, limit - len(taken)) if limit > len(taken) else []
        late = send_windows.put_off(session, activity, [row[_ID] for row in rows])
        rows = [row for row in rows if row[_ID] not in late]
        for reason in {row[_WHY] for row in rows if row[_WHY]}:
            skip(session, [row[_ID] for row in rows if row[_WHY] == reason], reason, state)
        taken += _swap(session, [row for row in rows if not row[_WHY]], state, batch)
        if not late:
            break
    return taken


_ID, _MEASURED, _WHY = 0, payload.OWN.index("trackable"), -1


def _next(session: Session, activity: Activity, state: SendState, limit: int) -> list[Row]:
    return _due(activity.built_in).rows(session, activity=activity.id, state=state, now=clock.now(), most=limit)


@lru_cache
def _due(built_in: str | None) -> db.PreparedQuery:
    """Everything about the next ones in one question: their columns, their contacts', whether they may be measured
    and why they may not be mailed.

    One state at a time, in the order of the index: nothing is sorted. On SQLite the writing transaction has the
    database alone and FOR UPDATE is left out.
    """
    now = bindparam("now", type_=Send.due_at.type)
    due = (
        select(*(getattr(Send, name) for name in payload.OWN))
        .where(Send.activity_id == bindparam("activity"), Send.state == bindparam("state"), Send.due_at <= now)
        .order_by(Send.due_at)
        .limit(bindparam("most", type_=Integer))
        .with_for_update(skip_locked=True)
        .cte("due")
    )
    level = consent.level_sql(ConsentPurpose.TRACKING, now)
    given = {"trackable": case((level == ConsentLevel.FULL, true()), else_=false())}
    return db.PreparedQuery(
        select(
            *(given.get(name, due.c[name]) for name in payload.OWN), *payload.PERSON, refusal(built_in, due.c.address)
        )
        .select_from(due)
        .outerjoin(Contact, Contact.id == due.c.contact_id)  # an erased one allows nothing
        .outerjoin(OutboxMail, OutboxMail.id == due.c.outbox_id)
    )


def _swap(session: Session, rows: Sequence[Row], state: SendState, batch: str) -> Sequence[Row]:
    """Those of the rows that are ours from now on: nearly always all, since they were locked."""
    swapped = 0
    for measured in {row[_MEASURED] for row in rows}:
        ids = [row[_ID] for row in rows if row[_MEASURED] == measured]
        claimed = (
            update(Send)
            .where(db.among(session, Send.id, ids), Send.state == state)
            # Whether it may be measured is written here and not when it is composed: each row changes once.
            .values(state=SendState.SENDING, claimed_by=batch, lease_until=clock.now() + LEASE, reason="")
            .values(trackable=bool(measured))
            .execution_options(synchronize_session=False)
        )
        swapped += session.connection().execute(claimed).rowcount
    if swapped == len(rows):
        return rows
    mine = db.among(session, Send.id, [row[_ID] for row in rows]), Send.claimed_by == batch
    ours = set(session.scalars(select(Send.id).where(*mine)))
    return [row for row in rows if row[_ID] in ours]
