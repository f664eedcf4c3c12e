"""Send windows: a send outside of its window is due when the window opens in its recipient's time zone.

The opening is computed once per time zone, not per row.
"""

from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import ColumnElement, Select, exists, func, or_, select, update
from sqlalchemy.orm import Session

from campaigns import clock, db
from campaigns.accounts.organisation import organisation
from campaigns.audience.models import Contact
from campaigns.delivery.models import OUTSIDE_WINDOW, WAITING_STATES, Send, SendState
from campaigns.planning.models import Activity, ActivityStatus
from campaigns.planning.send_windows import SendWindow, activity_window, next_opening, recipient_zone

_RECHECK_AFTER = timedelta(days=1)
"""Time until the next check of a window that the quiet hours leave no part of."""
ZonesByOpening = Mapping[datetime, Collection[str | None]]
"""Instant of the next opening → time zones of contacts (None: not set) whose window is closed until then."""


def closed_zones(session: Session, activity: Activity, zones: Select[Any]) -> ZonesByOpening:
    """The zones selected by ``zones`` whose window is closed now, by the instant of their next opening."""
    org = organisation(session)
    window = activity_window(activity, org)
    if not window:
        return {}
    return _group_by_opening(((zone, recipient_zone(zone, org)) for zone in session.scalars(zones)), window)


def _group_by_opening(zones: Iterable[tuple[str | None, str]], window: SendWindow) -> ZonesByOpening:
    now = clock.now()
    zones_by_opening: dict[datetime, list[str | None]] = defaultdict(list)
    for zone, zone_name in zones:
        opens_at = next_opening(window, zone_name, now) or now + _RECHECK_AFTER
        if opens_at > now:
            zones_by_opening[opens_at].append(zone)
    return zones_by_opening


def in_zones(column: ColumnElement[Any], zones: Collection[str | None]) -> ColumnElement[bool]:
    """SQL: whether the time zone in ``column`` is one of ``zones``; None in ``zones`` matches NULL."""
    named = column.in_([zone for zone in zones if zone is not None])
    return or_(column.is_(None), named) if None in zones else named


def postpone_outside_window(session: Session, activity: Activity, ids: Collection[int]) -> set[int]:
    """Postpone the due sends among ``ids`` whose window is closed now to its opening. Returns their ids."""
    if not ids:
        return set()
    org = organisation(session)
    window = activity_window(activity, org)
    if not window:
        return set()
    query = (
        select(Send.id, Contact.timezone)
        .select_from(Send)
        .outerjoin(Contact, Contact.id == Send.contact_id)
        .where(db.in_ids(session, Send.id, ids))
    )
    by_zone: dict[str | None, list[int]] = defaultdict(list)
    for send_id, zone in session.execute(query):
        by_zone[zone].append(send_id)
    postponed_ids: set[int] = set()
    for opens_at, zones in _group_by_opening(((zone, recipient_zone(zone, org)) for zone in by_zone), window).items():
        send_ids = [send_id for zone in zones for send_id in by_zone[zone]]
        session.execute(
            update(Send)
            .where(db.in_ids(session, Send.id, send_ids), Send.state.in_(WAITING_STATES))
            .values(due_at=opens_at, reason=OUTSIDE_WINDOW)
            .execution_options(synchronize_session=False)
        )
        postponed_ids.update(send_ids)
    return postponed_ids


def requeue_waiting(session: Session, limit: int = 10_000) -> bool:
    """Make up to ``limit`` sends due that wait for a window, after quiet hours were changed.

    A send whose window is still closed is postponed again when it is claimed. Returns whether there may be more: the
    caller commits between chunks, because one UPDATE of a million rows would block every other writer.
    """
    live_activities = select(Activity.id).where(Activity.status.in_((ActivityStatus.LIVE, ActivityStatus.PAUSED)))
    waiting_for_window = Send.due_at > clock.now(), Send.reason == OUTSIDE_WINDOW
    send_ids = session.scalars(
        select(Send.id)
        .where(Send.activity_id.in_(live_activities), Send.state.in_(WAITING_STATES), *waiting_for_window)
        .limit(limit)
    ).all()
    session.execute(
        update(Send)
        .where(db.in_ids(session, Send.id, send_ids), Send.state.in_(WAITING_STATES), *waiting_for_window)
        .values(due_at=clock.now(), reason="")
        .execution_options(synchronize_session=False)
    )
    return len(send_ids) == limit


def count_waiting(session: Session, activity_id: int, state: SendState, with_reason: int) -> int:
    """Number of sends in ``state`` that still wait for their window, out of ``with_reason`` ones with reason WINDOW.

    The others are due by now. Without a due send that is all of them; else it is counted in the index
    (activity_id, state, due_at).
    """
    in_state = Send.activity_id == activity_id, Send.state == state
    if not with_reason or not session.scalar(select(exists().where(*in_state, Send.due_at <= clock.now()))):
        return with_reason
    return min(with_reason, session.scalar(select(func.count()).where(*in_state, Send.due_at > clock.now())) or 0)


def next_due(session: Session, activity_id: int, state: SendState) -> datetime | None:
    """The time at which the first send in this state is due; None when no send is in it."""
    return session.scalar(select(func.min(Send.due_at)).where(Send.activity_id == activity_id, Send.state == state))
