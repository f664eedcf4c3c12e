"""How far a mailing is, in counts that add up to its audience."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from campaigns import clock
from campaigns.delivery import waiting
from campaigns.delivery.due import OPEN, WAITING
from campaigns.delivery.models import EXPIRED, Send, SendState, SkipReason
from campaigns.delivery.send_counts import SendCount
from campaigns.planning.models import Activity, ActivityStatus

_MARK = re.compile(r"(\d{1,12})\.(\d{1,12}\.\d)", re.ASCII)
_LATELY = 60.0
"""Seconds over which the present rate may be measured."""


@dataclass(frozen=True, slots=True)
class Progress:
    """Where a mailing stands. ``per_second`` is the average since it began."""

    counts: Mapping[SendState, int]
    total: int
    done: int
    complete: bool
    """Whether the whole audience has been expanded."""
    per_second: float | None
    lately: float | None
    """Mails a second since the look before this one; None when that is too long ago, or nothing is sent."""
    left: timedelta | None
    mark: str
    """Of this look, to be given to the next one."""
    waiting: int = 0
    """How many of the queued and deferred wait for their send window."""
    late: int = 0
    """How many of the failed came too late: the time to send was over."""


def counts(session: Session, activity_id: int) -> dict[SendState, int]:
    """Sends by state; states that nobody is in are left out. A launch's are counted as they change."""
    asked = (
        select(SendCount.state, func.sum(SendCount.number))
        .where(SendCount.activity_id == activity_id)
        .group_by(SendCount.state)
    )
    found = {state: int(count) for state, count in session.execute(asked) if count}
    if found:
        return found
    single = select(Send.state, func.count()).where(Send.activity_id == activity_id).group_by(Send.state)
    return {state: int(count) for state, count in session.execute(single)}  # test and system mail


def progress(session: Session, activity: Activity, before: str = "") -> Progress:
    """The counts, the speed, and how long it will take at that speed. ``before``: the mark of an earlier look."""
    found = counts(session, activity.id)
    total = sum(found.values())
    unsettled = sum(found.get(state, 0) for state in OPEN)
    windowed = waiting.count(session, activity.id) if any(map(found.get, WAITING)) else 0
    late = _late(session, activity.id) if found.get(SendState.FAILED) else 0
    mailed = total - unsettled - found.get(SendState.SKIPPED, 0) - found.get(SendState.CANCELLED, 0) - late
    rate = _rate(activity, mailed)
    queue = sum(found.get(state, 0) for state in (*WAITING, SendState.SENDING)) - windowed
    lately = _lately(before, mailed) if rate else None
    left = timedelta(seconds=round(queue / (lately or rate))) if rate and queue else None
    complete, mark = activity.expanded_at is not None, f"{mailed}.{clock.now().timestamp():.1f}"
    return Progress(found, total, total - unsettled, complete, rate, lately, left, mark, windowed, late)


def _late(session: Session, activity_id: int) -> int:
    failed = Send.activity_id == activity_id, Send.state == SendState.FAILED, Send.reason == EXPIRED
    return session.scalar(select(func.count(Send.id)).where(*failed)) or 0


def _lately(before: str, mailed: int) -> float | None:
    """The rate since the look of that mark, whoever wrote it."""
    match = _MARK.fullmatch(before)
    passed = clock.now().timestamp() - float(match[2]) if match else 0.0
    if match is None or not 1.0 <= passed <= _LATELY:
        return None
    return max(mailed - int(match[1]), 0) / passed or None


def _rate(activity: Activity, mailed: int) -> float | None:
    if activity.status is not ActivityStatus.LIVE or activity.launched_at is None or not mailed:
        return None
    return mailed / max((clock.now() - activity.launched_at).total_seconds(), 1.0)


def skipped(session: Session, activity_id: int) -> list[tuple[SkipReason, int]]:
    """Why people were left out, the most frequent reason first."""
    asked = (
        select(Send.reason, func.count())
        .where(Send.activity_id == activity_id, Send.state == SendState.SKIPPED)
        .group_by(Send.reason)
    )
    found = [(SkipReason(reason), int(count)) for reason, count in session.execute(asked)]
    return sorted(found, key=lambda pair: -pair[1])


def by_domain(session: Session, activity_id: int, most: int = 25) -> list[tuple[str, dict[SendState, int]]]:
    """The recipients' domains with the most sends, each by state. Reads every send: for when somebody asks."""
    at = func.strpos if session.get_bind().dialect.name == "postgresql" else func.instr
    domain = func.substr(Send.address, at(Send.address, "@") + 1)
    asked = select(domain, Send.state, func.count()).where(Send.activity_id == activity_id).group_by(domain, Send.state)
    found: dict[str, dict[SendState, int]] = {}
    for name, state, count in session.execute(asked):
        found.setdefault(name, {})[state] = int(count)
    return sorted(found.items(), key=lambda item: (-sum(item[1].values()), item[0]))[:most]
