"""Progress of an email activity: counts that add up to its audience, rates and the time left."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import case, func, select
from sqlalchemy.orm import Session

from campaigns import clock
from campaigns.delivery.models import EXPIRED, OPEN_STATES, OUTSIDE_WINDOW, WAITING_STATES, Send, SendState, SkipReason
from campaigns.delivery.sends import send_windows
from campaigns.delivery.sends.counters import REASON_FLAGS, SendCount
from campaigns.planning.models import Activity, ActivityStatus

_MARK = re.compile(r"(\d{1,12})\.(\d{1,12}\.\d)", re.ASCII)
_REASON_BY_FLAG = {int(mark): reason for reason, mark in REASON_FLAGS.items()}
_MAX_RATE_SECONDS = 60.0
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
    current_rate: float | None
    """Mails per second since the previous request; None when that is over a minute ago, or nothing was sent since."""
    time_left: timedelta | None
    """Estimated time until every queued mail was tried once. Retries of deferred mails are not included."""
    poll_mark: str
    """``<mails sent>.<Unix time>`` of this request, to be passed to the next one."""
    waiting_for_window: int = 0
    """Number of queued and deferred sends that wait for their send window."""
    expired: int = 0
    """Number of failed sends with reason EXPIRED."""
    skipped: Sequence[tuple[SkipReason, int]] = ()
    """(reason, sends) of the skipped ones, the most frequent reason first."""
    retrying: int = 0
    """Number of deferred sends that are tried again."""
    retry_at: datetime | None = None
    """When the first deferred send is due, once no queued one is left."""
    paced_until: datetime | None = None
    """When the last send is due that was postponed by a provider's limit or backoff. None while sends wait for a
    window: to tell them apart, all rows would have to be read."""
    opens_at: datetime | None = None
    """When the first send window opens, once no other queued send is left."""


def count_by_state(session: Session, activity_id: int) -> dict[SendState, int]:
    """State → number of sends, without states that have none. Launches are read from the counters."""
    by_state: dict[SendState, int] = {}
    for (state, _reason), number in count_by_state_and_reason(session, activity_id).items():
        by_state[state] = by_state.get(state, 0) + number
    return by_state


def count_by_state_and_reason(session: Session, activity_id: int) -> dict[tuple[SendState, str], int]:
    """(State, reason) → number of sends; the reason is a key of ``counters.REASON_FLAGS``, or ''.

    Launches are read from the counters; only their sends in state sending are counted in the table.
    """
    reason = SendCount.flags.bitwise_and(sum(REASON_FLAGS.values()))
    sending_count = select(func.count()).where(Send.activity_id == activity_id, Send.state == SendState.SENDING)
    query = (  # One statement, so that both numbers are of the same snapshot on PostgreSQL (READ COMMITTED).
        select(SendCount.state, reason, func.sum(SendCount.count), sending_count.scalar_subquery())
        .where(SendCount.activity_id == activity_id)
        .group_by(SendCount.state, reason)
    )
    totals: dict[tuple[SendState, str], int] = {}
    for state, flag, number, sending in session.execute(query):
        reason_name = _REASON_BY_FLAG.get(flag, "")
        if state is SendState.QUEUED and not reason_name:  # The counter includes SENDING, which has no reason.
            totals[SendState.SENDING, ""] = sending
            number -= sending
        totals[state, reason_name] = int(number)
    return {key: number for key, number in totals.items() if number} or _count_rows(session, activity_id)


def _count_rows(session: Session, activity_id: int) -> dict[tuple[SendState, str], int]:
    """The same for test, system and API mail, which the counters leave out: counted in the table."""
    reason = case((Send.reason.in_(REASON_FLAGS), Send.reason), else_="")
    query = select(Send.state, reason, func.count()).where(Send.activity_id == activity_id).group_by(Send.state, reason)
    return {(state, reason_name): int(number) for state, reason_name, number in session.execute(query)}


def measure_progress(session: Session, activity: Activity, previous_mark: str = "") -> SendProgress:
    """The progress of an activity now. ``previous_mark``: the ``poll_mark`` of an earlier request, for the rate."""
    by_reason = count_by_state_and_reason(session, activity.id)
    by_state: dict[SendState, int] = {}
    for (state, _reason), number in by_reason.items():
        by_state[state] = by_state.get(state, 0) + number
    total = sum(by_state.values())
    open_count = sum(by_state.get(state, 0) for state in OPEN_STATES)
    waiting_in_window = {
        s: send_windows.count_waiting(session, activity.id, s, by_reason.get((s, OUTSIDE_WINDOW), 0))
        for s in WAITING_STATES
    }
    expired = by_reason.get((SendState.FAILED, EXPIRED), 0)
    attempted = total - open_count - by_state.get(SendState.SKIPPED, 0) - by_state.get(SendState.CANCELLED, 0) - expired
    rate = _average_rate(activity, attempted)
    queued = (
        by_state.get(SendState.QUEUED, 0) + by_state.get(SendState.SENDING, 0) - waiting_in_window[SendState.QUEUED]
    )
    retrying = by_state.get(SendState.DEFERRED, 0) - waiting_in_window[SendState.DEFERRED]
    only_retries = retrying and not queued and activity.status is ActivityStatus.LIVE
    retry_at = send_windows.next_due(session, activity.id, SendState.DEFERRED) if only_retries else None
    current_rate = _current_rate(previous_mark, attempted) if rate else None
    time_left = timedelta(seconds=round(queued / (current_rate or rate))) if rate and queued else None
    paced_until = _paced_until(session, activity.id) if time_left and not waiting_in_window[SendState.QUEUED] else None
    if time_left and paced_until:
        time_left = max(time_left, paced_until - clock.now())
    only_windows = waiting_in_window[SendState.QUEUED] and not queued
    opens_at = send_windows.next_due(session, activity.id, SendState.QUEUED) if only_windows else None
    complete, poll_mark = activity.email.expanded_at is not None, f"{attempted}.{clock.now().timestamp():.1f}"
    done, waiting = total - open_count, sum(waiting_in_window.values())
    return SendProgress(
        by_state,
        total,
        done,
        complete,
        rate,
        current_rate,
        time_left,
        poll_mark,
        waiting,
        expired,
        _skip_counts(by_reason),
        retrying,
        retry_at,
        paced_until,
        opens_at,
    )


def _paced_until(session: Session, activity_id: int) -> datetime | None:
    queued = Send.activity_id == activity_id, Send.state == SendState.QUEUED
    last = session.scalar(select(func.max(Send.due_at)).where(*queued))
    return last if last is not None and last > clock.now() else None


def _skip_counts(by_reason: Mapping[tuple[SendState, str], int]) -> list[tuple[SkipReason, int]]:
    skipped = ((reason, number) for (state, reason), number in by_reason.items() if state is SendState.SKIPPED)
    counts = [(SkipReason(reason), number) for reason, number in skipped if reason in set(SkipReason)]
    return sorted(counts, key=lambda pair: -pair[1])


def _current_rate(previous_mark: str, mailed: int) -> float | None:
    """Mails per second since the request that wrote the mark. The mark comes from the URL and is not trusted."""
    match = _MARK.fullmatch(previous_mark)
    seconds = clock.now().timestamp() - float(match[2]) if match else 0.0
    if match is None or not 1.0 <= seconds <= _MAX_RATE_SECONDS:
        return None
    return max(mailed - int(match[1]), 0) / seconds or None


def _average_rate(activity: Activity, mailed: int) -> float | None:
    if activity.status is not ActivityStatus.LIVE or activity.launched_at is None or not mailed:
        return None
    return mailed / max((clock.now() - activity.launched_at).total_seconds(), 1.0)


def by_domain(session: Session, activity_id: int, limit: int = 25) -> list[tuple[str, dict[SendState, int]]]:
    """(Domain, state → number of sends) of the ``limit`` recipient domains with the most sends.

    Reads every send of the activity, so it is loaded on request only.
    """
    position = func.strpos if session.get_bind().dialect.name == "postgresql" else func.instr
    domain = func.substr(Send.address, position(Send.address, "@") + 1)
    query = select(domain, Send.state, func.count()).where(Send.activity_id == activity_id).group_by(domain, Send.state)
    domains: dict[str, dict[SendState, int]] = {}
    for name, state, count in session.execute(query):
        domains.setdefault(name, {})[state] = int(count)
    return sorted(domains.items(), key=lambda item: (-sum(item[1].values()), item[0]))[:limit]
