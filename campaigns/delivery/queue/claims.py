"""Claims of due sends: compare-and-swap with leases.

A claim moves due sends to ``sending`` under a batch name in one transaction. It holds for one lease
(:mod:`campaigns.delivery.queue.leases`).
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
from campaigns.delivery.queue.skips import refusal_sql, skip_sends
from campaigns.delivery.sends import frequency_cap, send_windows
from campaigns.outbox import OutboxMail
from campaigns.planning.models import Activity, ActivityStatus

MAX_BATCH = 1_000
"""Maximum number of sends in one claim."""
_MAX_SELECTS = 10
"""Maximum number of SELECTs per claim and state; another one follows while some rows were outside of their window."""


def claim(session: Session, activity_id: int, batch: str, limit: int) -> list[Row]:
    """Claim up to ``limit`` (at most 1,000) due sends of a live activity for ``batch``.

    Returns one row per claimed send, ordered by send id, with the columns that
    :func:`campaigns.delivery.queue.payload.load` needs; an empty list when the activity may not send.

    Recipients who may not be mailed any more (suppressed, or consent withdrawn since the audience was frozen, or over
    the frequency cap) are skipped in the same transaction and are not returned.
    """
    activity = session.get(Activity, activity_id, populate_existing=True)
    if activity is None or not _may_send(activity):
        return []
    rows: list[Row] = []
    for state in (SendState.QUEUED, SendState.DEFERRED):
        rows += _claim_due(session, activity, state, batch, min(limit, MAX_BATCH) - len(rows))
    capped_ids = (
        frequency_cap.find_capped(session, batch, [row[_ID] for row in rows]) if activity.built_in is None else set()
    )
    skip_sends(session, capped_ids, SkipReason.CAPPED)
    return sorted((row for row in rows if row[_ID] not in capped_ids), key=itemgetter(_ID))


def may_send(session: Session, activity_id: int) -> bool:
    """Whether the activity is live and before its ``stop_after``. Built-in activities may always send."""
    activity = session.get(Activity, activity_id, populate_existing=True)
    return activity is not None and _may_send(activity)


def _may_send(activity: Activity) -> bool:
    in_time = activity.email.stop_after is None or clock.now() < activity.email.stop_after
    return activity.built_in is not None or (activity.status is ActivityStatus.LIVE and in_time)


def _claim_due(session: Session, activity: Activity, state: SendState, batch: str, limit: int) -> list[Row]:
    """Claim due sends in ``state``, up to ``limit``.

    Sends outside of their window are postponed to its opening, refused ones are skipped.
    """
    claimed: list[Row] = []
    for _ in range(_MAX_SELECTS):
        rows = _select_due(session, activity, state, limit - len(claimed)) if limit > len(claimed) else []
        outside_window = send_windows.postpone_outside_window(session, activity, [row[_ID] for row in rows])
        rows = [row for row in rows if row[_ID] not in outside_window]
        for reason in {row[_REASON] for row in rows if row[_REASON]}:
            skip_sends(session, [row[_ID] for row in rows if row[_REASON] == reason], reason, state)
        claimed += _compare_and_swap(session, [row for row in rows if not row[_REASON]], state, batch)
        if not outside_window:
            break
    return claimed


_ID, _TRACKABLE, _REASON = 0, payload.SEND_COLUMNS.index("trackable"), -1


def _select_due(session: Session, activity: Activity, state: SendState, limit: int) -> list[Row]:
    return _due_query(activity.built_in).rows(session, activity=activity.id, state=state, now=clock.now(), most=limit)


@lru_cache
def _due_query(built_in: str | None) -> db.PreparedQuery:
    """The query for the next due sends: their columns, their contacts' columns, the reason not to mail them.

    The column ``trackable`` is computed: whether tracking consent is full now. The query reads one state at a time, so
    that the index (activity_id, state, due_at) gives the order and nothing is sorted. SQLite has no FOR UPDATE; there a
    writing transaction begins IMMEDIATE and has the database alone.
    """
    now = bindparam("now", type_=Send.due_at.type)
    due = (
        select(*(getattr(Send, name) for name in payload.SEND_COLUMNS))
        .where(Send.activity_id == bindparam("activity"), Send.state == bindparam("state"), Send.due_at <= now)
        .order_by(Send.due_at)
        .limit(bindparam("most", type_=Integer))
        .with_for_update(skip_locked=True)
        .cte("due")
    )
    level = consent.level_sql(ConsentPurpose.TRACKING, now)
    computed = {"trackable": case((level == ConsentLevel.FULL, true()), else_=false())}
    return db.PreparedQuery(
        select(
            *(computed.get(name, due.c[name]) for name in payload.SEND_COLUMNS),
            *payload.CONTACT_COLUMNS,
            refusal_sql(built_in, due.c.address),
        )
        .select_from(due)
        .outerjoin(Contact, Contact.id == due.c.contact_id)  # An erased contact has no row and no consent.
        .outerjoin(OutboxMail, OutboxMail.id == due.c.outbox_id)
    )


def _compare_and_swap(session: Session, rows: Sequence[Row], state: SendState, batch: str) -> Sequence[Row]:
    """Move the rows from ``state`` to ``sending`` and return those that this batch got.

    These are all rows, because they were selected with a lock, unless another transaction changed a state meanwhile.
    """
    claimed_count = 0
    for trackable in {row[_TRACKABLE] for row in rows}:
        ids = [row[_ID] for row in rows if row[_TRACKABLE] == trackable]
        claim_update = (
            update(Send)
            .where(db.in_ids(session, Send.id, ids), Send.state == state)
            # ``trackable`` is written with the claim and not when the mail is composed: one UPDATE per row.
            .values(state=SendState.SENDING, claimed_by=batch, lease_until=clock.now() + LEASE, reason="")
            .values(trackable=bool(trackable))
            .execution_options(synchronize_session=False)
        )
        claimed_count += session.connection().execute(claim_update).rowcount
    if claimed_count == len(rows):
        return rows
    claimed_by_batch = db.in_ids(session, Send.id, [row[_ID] for row in rows]), Send.claimed_by == batch
    claimed_ids = set(session.scalars(select(Send.id).where(*claimed_by_batch)))
    return [row for row in rows if row[_ID] in claimed_ids]
