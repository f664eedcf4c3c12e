"""Who waits for an hour: sends outside of their window are due when it opens in their recipient's time zone.

Worked out for each zone, never for each row.
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
"""When to look again at a window that the quiet hours have closed for good."""
Zones = Mapping[datetime, Collection[str | None]]


def openings(session: Session, activity: Activity, zones: Select[Any]) -> Zones:
    """By the instant of the next opening the zones of ``zones`` (a question) that are closed now."""
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
    """Whether a time zone is one of ``zones``, NULL among them."""
    named = column.in_([zone for zone in zones if zone is not None])
    return or_(column.is_(None), named) if None in zones else named


def put_off(session: Session, activity: Activity, ids: Collection[int]) -> set[int]:
    """Let those of the due sends ``ids`` whose window is closed by now wait for its opening; their ids."""
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
    """The hours have changed: up to ``most`` who wait for an opening are due, and who still has to wait is put off
    again when claimed. Whether there may be more of them: a million at once would keep every other writer waiting."""
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
    """How many of those ``marked`` as waiting for their window (in this state) still do; the others are due by now.

    Reads the index only, and even that only while some window has opened and another has not.
    """
    mine = Send.activity_id == activity_id, Send.state == state
    if not marked or not session.scalar(select(exists().where(*mine, Send.due_at <= clock.now()))):
        return marked
    return min(marked, session.scalar(select(func.count()).where(*mine, Send.due_at > clock.now())) or 0)


def next_due(session: Session, activity_id: int, state: SendState) -> datetime | None:
    """When the first send in this state is due; None when there is none."""
    return session.scalar(select(func.min(Send.due_at)).where(Send.activity_id == activity_id, Send.state == state))
