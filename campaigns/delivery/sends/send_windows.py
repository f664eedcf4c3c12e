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
from campaigns.delivery.models import WAITING, WINDOW, Send, SendState
from campaigns.planning.models import Activity, ActivityStatus
from campaigns.planning.send_windows import SendWindow, known_zone, opening, window_of

_NEVER = timedelta(days=1)
"""Time until the next check of a window that the quiet hours leave no part of."""
Zones = Mapping[datetime, Collection[str | None]]
"""Instant of the next opening → time zones of contacts (None: not set) whose window is closed until then."""


def openings(session: Session, activity: Activity, zones: Select[Any]) -> Zones:
    """The zones selected by ``zones`` whose window is closed now, by the instant of their next opening."""
    house = organisation(session)
    window = window_of(activity, house)
    if not window:
        return {}
    return _closed(((zone, known_zone(zone, house)) for zone in session.scalars(zones)), window)


def _closed(zones: Iterable[tuple[str | None, str]], window: SendWindow) -> Zones:
    now = clock.now()
    found: dict[datetime, list[str | None]] = defaultdict(list)
    for zone, known in zones:
        at = opening(window, known, now) or now + _NEVER
        if at > now:
            found[at].append(zone)
    return found


def in_zones(column: ColumnElement[Any], zones: Collection[str | None]) -> ColumnElement[bool]:
    """SQL: whether the time zone in ``column`` is one of ``zones``; None in ``zones`` matches NULL."""
    named = column.in_([zone for zone in zones if zone is not None])
    return or_(column.is_(None), named) if None in zones else named


def put_off(session: Session, activity: Activity, ids: Collection[int]) -> set[int]:
    """Postpone the due sends among ``ids`` whose window is closed now to its opening. Returns their ids."""
    if not ids:
        return set()
    house = organisation(session)
    window = window_of(activity, house)
    if not window:
        return set()
    asked = (
        select(Send.id, Contact.timezone)
        .select_from(Send)
        .outerjoin(Contact, Contact.id == Send.contact_id)
        .where(db.among(session, Send.id, ids))
    )
    by_zone: dict[str | None, list[int]] = defaultdict(list)
    for send_id, zone in session.execute(asked):
        by_zone[zone].append(send_id)
    late: set[int] = set()
    for at, zones in _closed(((zone, known_zone(zone, house)) for zone in by_zone), window).items():
        mine = [send_id for zone in zones for send_id in by_zone[zone]]
        session.execute(
            update(Send)
            .where(db.among(session, Send.id, mine), Send.state.in_(WAITING))
            .values(due_at=at, reason=WINDOW)
            .execution_options(synchronize_session=False)
        )
        late.update(mine)
    return late


def ask_anew(session: Session, most: int = 10_000) -> bool:
    """Make up to ``limit`` sends due that wait for a window, after quiet hours were changed.

    A send whose window is still closed is postponed again when it is claimed. Returns whether there may be more: the
    caller commits between chunks, because one UPDATE of a million rows would block every other writer.
    """
    live = select(Activity.id).where(Activity.status.in_((ActivityStatus.LIVE, ActivityStatus.PAUSED)))
    later = Send.due_at > clock.now(), Send.reason == WINDOW
    found = session.scalars(
        select(Send.id).where(Send.activity_id.in_(live), Send.state.in_(WAITING), *later).limit(most)
    ).all()
    session.execute(
        update(Send)
        .where(db.among(session, Send.id, found), Send.state.in_(WAITING), *later)
        .values(due_at=clock.now(), reason="")
        .execution_options(synchronize_session=False)
    )
    return len(found) == most


def still(session: Session, activity_id: int, state: SendState, marked: int) -> int:
    """Number of sends in ``state`` that still wait for their window, out of ``with_reason`` ones with reason WINDOW.

    The others are due by now. Without a due send that is all of them; else it is counted in the index
    (activity_id, state, due_at).
    """
    mine = Send.activity_id == activity_id, Send.state == state
    if not marked or not session.scalar(select(exists().where(*mine, Send.due_at <= clock.now()))):
        return marked
    return min(marked, session.scalar(select(func.count()).where(*mine, Send.due_at > clock.now())) or 0)


def next_due(session: Session, activity_id: int, state: SendState) -> datetime | None:
    """When the first send in this state is due; None when no send is in it."""
    return session.scalar(select(func.min(Send.due_at)).where(Send.activity_id == activity_id, Send.state == state))
