"""Progress of an email activity: counts that add up to its audience, rates and the time left."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import case, func, select
from sqlalchemy.orm import Session

from campaigns import clock
from campaigns.delivery.models import EXPIRED, OPEN, WAITING, WINDOW, Send, SendState, SkipReason
from campaigns.delivery.sends import send_windows
from campaigns.delivery.sends.counters import REASONS, SendCount
from campaigns.planning.models import Activity, ActivityStatus

_MARK = re.compile(r"(\d{1,12})\.(\d{1,12}\.\d)", re.ASCII)
_REASON_OF = {int(mark): reason for reason, mark in REASONS.items()}
_LATELY = 60.0
"""Maximum number of seconds over which the current rate is measured."""


@dataclass(frozen=True, slots=True)
class SendProgress:
    """Progress of an email activity. ``done`` counts sends that are not open any more."""

    counts: Mapping[SendState, int]
    total: int
    done: int
    complete: bool
    """Whether the whole audience has been expanded."""
    per_second: float | None
    """Mails per second on average since the launch; None unless the activity is live and has sent some."""
    lately: float | None
    """Mails per second since the previous request; None when that is over a minute ago, or nothing was sent since."""
    left: timedelta | None
    """Estimated time until every queued mail was tried once. Retries of deferred mails are not included."""
    mark: str
    """``<mails sent>.<Unix time>`` of this request, to be passed to the next one."""
    waiting: int = 0
    """Number of queued and deferred sends that wait for their send window."""
    late: int = 0
    """Number of failed sends with reason EXPIRED."""
    skipped: Sequence[tuple[SkipReason, int]] = ()
    """(reason, sends) of the skipped ones, the most frequent reason first."""
    again: int = 0
    """Number of deferred sends that are tried again."""
    retry_at: datetime | None = None
    """When the first deferred send is due, once no queued one is left."""
    paced_until: datetime | None = None
    """When the last send is due that was postponed by a provider's limit or backoff. None while sends wait for a
    window: to tell them apart, all rows would have to be read."""
    opens_at: datetime | None = None
    """When the first send window opens, once no other queued send is left."""


def counts(session: Session, activity_id: int) -> dict[SendState, int]:
    """State → number of sends, without states that have none. Launches are read from the counters."""
    found: dict[SendState, int] = {}
    for (state, _reason), number in standing(session, activity_id).items():
        found[state] = found.get(state, 0) + number
    return found


def standing(session: Session, activity_id: int) -> dict[tuple[SendState, str], int]:
    """(State, reason) → number of sends; the reason is a key of ``counters.REASON_FLAGS``, or ''.

    Launches are read from the counters; only their sends in state sending are counted in the table.
    """
    reason = SendCount.flags.bitwise_and(sum(REASONS.values()))
    under_way = select(func.count()).where(Send.activity_id == activity_id, Send.state == SendState.SENDING)
    asked = (  # One statement, so that both numbers are of the same snapshot on PostgreSQL (READ COMMITTED).
        select(SendCount.state, reason, func.sum(SendCount.count), under_way.scalar_subquery())
        .where(SendCount.activity_id == activity_id)
        .group_by(SendCount.state, reason)
    )
    found: dict[tuple[SendState, str], int] = {}
    for state, mark, number, sending in session.execute(asked):
        told = _REASON_OF.get(mark, "")
        if state is SendState.QUEUED and not told:  # The counter includes SENDING, which has no reason.
            found[SendState.SENDING, ""] = sending
            number -= sending
        found[state, told] = int(number)
    return {key: number for key, number in found.items() if number} or _of_single(session, activity_id)


def _of_single(session: Session, activity_id: int) -> dict[tuple[SendState, str], int]:
    """The same for test, system and API mail, which the counters leave out: counted in the table."""
    reason = case((Send.reason.in_(REASONS), Send.reason), else_="")
    asked = select(Send.state, reason, func.count()).where(Send.activity_id == activity_id).group_by(Send.state, reason)
    return {(state, told): int(number) for state, told, number in session.execute(asked)}


def progress(session: Session, activity: Activity, before: str = "") -> SendProgress:
    """The progress of an activity now. ``previous_mark``: the ``poll_mark`` of an earlier request, for the rate."""
    stand = standing(session, activity.id)
    found: dict[SendState, int] = {}
    for (state, _reason), number in stand.items():
        found[state] = found.get(state, 0) + number
    total = sum(found.values())
    unsettled = sum(found.get(state, 0) for state in OPEN)
    windowed = {s: send_windows.still(session, activity.id, s, stand.get((s, WINDOW), 0)) for s in WAITING}
    late = stand.get((SendState.FAILED, EXPIRED), 0)
    mailed = total - unsettled - found.get(SendState.SKIPPED, 0) - found.get(SendState.CANCELLED, 0) - late
    rate = _rate(activity, mailed)
    queue = found.get(SendState.QUEUED, 0) + found.get(SendState.SENDING, 0) - windowed[SendState.QUEUED]
    again = found.get(SendState.DEFERRED, 0) - windowed[SendState.DEFERRED]
    only_again = again and not queue and activity.status is ActivityStatus.LIVE
    retry_at = send_windows.next_due(session, activity.id, SendState.DEFERRED) if only_again else None
    lately = _lately(before, mailed) if rate else None
    left = timedelta(seconds=round(queue / (lately or rate))) if rate and queue else None
    paced_until = _paced_until(session, activity.id) if left and not windowed[SendState.QUEUED] else None
    if left and paced_until:
        left = max(left, paced_until - clock.now())
    only_windows = windowed[SendState.QUEUED] and not queue
    opens_at = send_windows.next_due(session, activity.id, SendState.QUEUED) if only_windows else None
    complete, mark = activity.email.expanded_at is not None, f"{mailed}.{clock.now().timestamp():.1f}"
    done, waits = total - unsettled, sum(windowed.values())
    return SendProgress(
        found,
        total,
        done,
        complete,
        rate,
        lately,
        left,
        mark,
        waits,
        late,
        _skipped(stand),
        again,
        retry_at,
        paced_until,
        opens_at,
    )


def _paced_until(session: Session, activity_id: int) -> datetime | None:
    queued = Send.activity_id == activity_id, Send.state == SendState.QUEUED
    last = session.scalar(select(func.max(Send.due_at)).where(*queued))
    return last if last is not None and last > clock.now() else None


def _skipped(stand: Mapping[tuple[SendState, str], int]) -> list[tuple[SkipReason, int]]:
    left_out = ((reason, number) for (state, reason), number in stand.items() if state is SendState.SKIPPED)
    found = [(SkipReason(reason), number) for reason, number in left_out if reason in set(SkipReason)]
    return sorted(found, key=lambda pair: -pair[1])


def _lately(before: str, mailed: int) -> float | None:
    """Mails per second since the request that wrote the mark. The mark comes from the URL and is not trusted."""
    match = _MARK.fullmatch(before)
    passed = clock.now().timestamp() - float(match[2]) if match else 0.0
    if match is None or not 1.0 <= passed <= _LATELY:
        return None
    return max(mailed - int(match[1]), 0) / passed or None


def _rate(activity: Activity, mailed: int) -> float | None:
    if activity.status is not ActivityStatus.LIVE or activity.launched_at is None or not mailed:
        return None
    return mailed / max((clock.now() - activity.launched_at).total_seconds(), 1.0)


def by_domain(session: Session, activity_id: int, most: int = 25) -> list[tuple[str, dict[SendState, int]]]:
    """(Domain, state → number of sends) of the ``limit`` recipient domains with the most sends.

    Reads every send of the activity, so it is loaded on request only.
    """
    at = func.strpos if session.get_bind().dialect.name == "postgresql" else func.instr
    domain = func.substr(Send.address, at(Send.address, "@") + 1)
    asked = select(domain, Send.state, func.count()).where(Send.activity_id == activity_id).group_by(domain, Send.state)
    found: dict[str, dict[SendState, int]] = {}
    for name, state, count in session.execute(asked):
        found.setdefault(name, {})[state] = int(count)
    return sorted(found.items(), key=lambda item: (-sum(item[1].values()), item[0]))[:most]
