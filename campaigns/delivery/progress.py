"""How far a mailing is, in counts that add up to its audience."""

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from campaigns import clock
from campaigns.delivery import waiting
from campaigns.delivery.due import OPEN, WAITING
from campaigns.delivery.models import EXPIRED, Send, SendState, SkipReason
from campaigns.planning.models import Activity, ActivityStatus

_TOLD = (SendState.DEFERRED, SendState.BOUNCED, SendState.FAILED, SendState.HELD, SendState.UNKNOWN)
_REPLIES = 500
_VARYING = re.compile(r"<?[^\s<>@]+@[^\s<>@]+>?|\b(?=\w*\d)\w{6,}\b|\b\d{2,3}(?:\.\d{1,3}){3}\b")


@dataclass(frozen=True, slots=True)
class Progress:
    """Where a mailing stands. ``per_second`` is the average since it began."""

    counts: Mapping[SendState, int]
    total: int
    done: int
    complete: bool
    """Whether the whole audience has been expanded."""
    per_second: float | None
    left: timedelta | None
    waiting: int = 0
    """How many of the queued and deferred wait for their send window."""
    late: int = 0
    """How many of the failed came too late: the time to send was over."""


def counts(session: Session, activity_id: int) -> dict[SendState, int]:
    """Sends by state; states that nobody is in are left out."""
    asked = select(Send.state, func.count()).where(Send.activity_id == activity_id).group_by(Send.state)
    return {state: int(count) for state, count in session.execute(asked)}


def progress(session: Session, activity: Activity) -> Progress:
    """The counts, the speed, and how long it will take at that speed."""
    found = counts(session, activity.id)
    total = sum(found.values())
    unsettled = sum(found.get(state, 0) for state in OPEN)
    windowed = waiting.count(session, activity.id) if any(map(found.get, WAITING)) else 0
    late = _late(session, activity.id) if found.get(SendState.FAILED) else 0
    mailed = total - unsettled - found.get(SendState.SKIPPED, 0) - found.get(SendState.CANCELLED, 0) - late
    rate = _rate(activity, mailed)
    queue = sum(found.get(state, 0) for state in (*WAITING, SendState.SENDING)) - windowed
    left = timedelta(seconds=round(queue / rate)) if rate and queue else None
    return Progress(found, total, total - unsettled, activity.expanded_at is not None, rate, left, windowed, late)


def _late(session: Session, activity_id: int) -> int:
    failed = Send.activity_id == activity_id, Send.state == SendState.FAILED, Send.reason == EXPIRED
    return session.scalar(select(func.count(Send.id)).where(*failed)) or 0


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


def replies(session: Session, activity_id: int) -> Sequence[tuple[SendState, str, int]]:
    """What relays answered where a mail was not simply taken, alike answers together, most frequent first."""
    asked = (
        select(Send.state, Send.reply, func.count())
        .where(Send.activity_id == activity_id, Send.state.in_(_TOLD))
        .group_by(Send.state, Send.reply)
        .order_by(func.count().desc())
        .limit(_REPLIES)
    )
    grouped: Counter[tuple[SendState, str]] = Counter()
    for state, reply, count in session.execute(asked):
        grouped[state, alike(reply)] += count
    return [(state, reply, count) for (state, reply), count in grouped.most_common(20)]


def alike(reply: str) -> str:
    """A relay's answer without what differs from mail to mail: addresses, queue ids, networks."""
    return _VARYING.sub("…", reply)
