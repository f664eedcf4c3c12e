"""Time series for charts: 15-minute counters summed to intervals of local time.

Intervals begin at local quarters, hours, midnights or Mondays, so a day of 23 or 25 hours is one interval. Every UTC
offset in use is a multiple of 15 minutes, so each counter falls into exactly one interval.
"""

import json
from bisect import bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import Any
from zoneinfo import ZoneInfo

from sqlalchemy import (
    ARRAY,
    ColumnElement,
    DateTime,
    Float,
    Select,
    Subquery,
    TableValuedAlias,
    cast,
    func,
    literal,
    select,
    type_coerce,
)
from sqlalchemy.orm import InstrumentedAttribute, Session

from campaigns.db import UtcDateTime, to_micros
from campaigns.i18n import N_
from campaigns.leads.models import Lead
from campaigns.planning.models import Activity
from tracking.counters import bulk_sql, daily
from tracking.counters.periods import WHOLE, Window
from tracking.metrics.queries import one_of, within
from tracking.models.events import HitKind, TrafficLabel

_LEAST_STEPS = 12
_EARLIEST, _LATEST = datetime(1900, 1, 1, tzinfo=UTC), datetime(9000, 1, 1, tzinfo=UTC)


class Interval(StrEnum):
    """The length of a chart's intervals; ``QUARTER`` is a quarter of an hour."""

    QUARTER = "quarter"
    HOUR = "hour"
    DAY = "day"
    WEEK = "week"

    @property
    def label(self) -> str:
        return {
            self.QUARTER: N_("per 15 minutes"),
            self.HOUR: N_("per hour"),
            self.DAY: N_("per day"),
            self.WEEK: N_("per week"),
        }[self]


@dataclass(frozen=True, slots=True)
class TimeSeries:
    """Hits, new leads and visits per interval; ``starts`` holds the first instant of each interval, in the zone.

    All sequences have the same length, except ``visits``, which may be empty.
    """

    step: Interval
    starts: Sequence[datetime]
    opens: Sequence[int]
    clicks: Sequence[int]
    views: Sequence[int]
    leads: Sequence[int]
    visits: Sequence[int] = ()

    @property
    def empty(self) -> bool:
        return not any((*self.opens, *self.clicks, *self.views, *self.leads, *self.visits))


def series(
    session: Session,
    campaign_id: int,
    zone: ZoneInfo,
    first: datetime,
    last: datetime,
    *,
    window: Window = WHOLE,
    labels: Sequence[TrafficLabel] = (TrafficLabel.HUMAN,),
    activities: Sequence[int] | None = None,
) -> TimeSeries:
    """Return opens, clicks, views, leads and visits of a campaign within a window, per interval from ``first`` to
    ``last``.

    Runs three queries, and one more when ``activities`` (the ids of the campaign's activities) is None.
    Hits before the first interval are counted in the first and hits after the last one in the last, so that each
    sequence adds up to the campaign's total.
    """
    step = fitting(last - first)
    starts = cut(first, last, zone, step)
    # As a list of ids: behind a subquery the planner cannot estimate how few they are and scans the whole table.
    if activities is None:
        activities = session.scalars(select(Activity.id).where(Activity.campaign_id == campaign_id)).all()
    counted, at = daily.hits(session, window, *starts)
    hits = (
        select(counted.kind, at, cast(func.sum(counted.events), Float))
        .where(one_of(session, counted.activity_id, activities), counted.link == 0, counted.label.in_(labels))
        .where(*within(at, window))
        .group_by(counted.kind, at)
    )
    visited, began = daily.visits(session, window, *starts)
    visits = (
        select(literal(0), began, cast(func.sum(visited.visits), Float))
        .where(one_of(session, visited.activity_id, activities), visited.label.in_(labels))
        .where(*within(began, window))
        .group_by(began)
    )
    columns = _summed(session, hits, starts)
    nothing = [0] * len(starts)
    return TimeSeries(
        step,
        starts,
        columns.get(HitKind.OPEN, nothing),
        columns.get(HitKind.CLICK, nothing),
        columns.get(HitKind.VIEW, nothing),
        _counted(session, Lead.created_at, window, starts, Lead.campaign_id == campaign_id),
        _summed(session, visits, starts).get(0, nothing),
    )


def of_company(
    session: Session,
    zone: ZoneInfo,
    first: datetime,
    last: datetime,
    moments: Mapping[str, InstrumentedAttribute[datetime]],
) -> tuple[Interval, list[datetime], dict[str, list[int]]]:
    """Return ``(interval, starts, counts)`` for all campaigns from ``first`` to before ``last``.

    ``counts[name]`` is the number of rows per interval whose instant ``moments[name]`` lies in it; one query per name.
    """
    step = fitting(last - first)
    starts = [start for start in cut(first, last - timedelta(microseconds=1), zone, step) if start >= first] or [first]
    window = Window(first, last)
    return step, starts, {name: _counted(session, at, window, starts) for name, at in moments.items()}


def sparks(session: Session, campaign_ids: Sequence[int], starts: Sequence[datetime]) -> dict[int, list[int]]:
    """Return human opens plus clicks per campaign id and interval, in one query. Hits before ``starts[0]`` are left
    out."""
    counted, at = daily.hits(session, WHOLE, *starts)
    query = (
        select(Activity.campaign_id, at, cast(func.sum(counted.events), Float))
        .join(Activity, Activity.id == counted.activity_id)
        .where(
            one_of(session, Activity.campaign_id, campaign_ids),
            counted.link == 0,
            counted.label == TrafficLabel.HUMAN,
            counted.kind.in_((HitKind.OPEN, HitKind.CLICK)),
            at >= starts[0],
        )
        .group_by(Activity.campaign_id, at)
    )
    return {campaign_id: [0] * len(starts) for campaign_id in campaign_ids} | _summed(session, query, starts)


def fitting(span: timedelta) -> Interval:
    """Return the finest interval that a chart of this length can show."""
    if span <= timedelta(hours=6):
        return Interval.QUARTER
    if span <= timedelta(hours=72):
        return Interval.HOUR
    return Interval.DAY if span <= timedelta(days=92) else Interval.WEEK


def cut(first: datetime, last: datetime, zone: ZoneInfo, step: Interval) -> list[datetime]:
    """Return the starts of all intervals from ``first`` to ``last`` in local time.

    Earlier intervals are prepended until there are at least twelve.
    """
    starts = [_floor(first, zone, step)]
    while (following := _after(starts[-1], step)) <= last:
        starts.append(following)
    while len(starts) < _LEAST_STEPS:
        starts.insert(0, _floor(starts[0].astimezone(UTC) - timedelta(microseconds=1), zone, step))
    return starts


def days(last: datetime, zone: ZoneInfo, number: int) -> list[datetime]:
    """Return the local midnights of the last ``number`` days in ascending order; the last one begins the day of
    ``last``."""
    today = last.astimezone(zone).replace(hour=0, minute=0, second=0, microsecond=0, fold=0)
    return [today - timedelta(days=back) for back in reversed(range(number))]


def _floor(at: datetime, zone: ZoneInfo, step: Interval) -> datetime:
    local = at.astimezone(zone)
    if step is Interval.QUARTER:
        return local.replace(minute=local.minute // 15 * 15, second=0, microsecond=0)
    if step is Interval.HOUR:
        return local.replace(minute=0, second=0, microsecond=0)
    midnight = local.replace(hour=0, minute=0, second=0, microsecond=0, fold=0)
    return midnight - timedelta(days=midnight.weekday()) if step is Interval.WEEK else midnight


def _after(start: datetime, step: Interval) -> datetime:
    """Return the start of the next interval.

    Days and weeks advance in local time. Hours and quarters advance in UTC; otherwise the hour that is repeated at the
    end of summer time would be lost.
    """
    if step in (Interval.DAY, Interval.WEEK):
        return start + timedelta(days=7 if step is Interval.WEEK else 1)
    length = timedelta(minutes=15) if step is Interval.QUARTER else timedelta(hours=1)
    return (start.astimezone(UTC) + length).astimezone(start.tzinfo)


def _summed(session: Session, query: Select[Any], starts: Sequence[datetime]) -> dict[int, list[int]]:
    """Sum rows of ``(key, instant, number)`` by the interval of their instant; returns the sums by key."""
    bounds = [start.astimezone(UTC) for start in starts]  # UTC, as comparing aware local times needs two offsets each.
    columns: dict[int, list[int]] = {}
    for what, at, number in session.execute(query):
        column = columns.setdefault(what, [0] * len(starts))
        column[max(bisect_right(bounds, at) - 1, 0)] += int(number)
    return columns


def _counted(
    session: Session,
    at: InstrumentedAttribute[datetime],
    window: Window,
    starts: Sequence[datetime],
    *meant: ColumnElement[bool],
) -> list[int]:
    """Count the rows of a window per interval in the database, with one index range per interval."""
    first, last = window.since or _EARLIEST, window.until or _LATEST
    # The window limits the interval bounds instead of being a condition of its own: with both conditions SQLite
    # would scan the whole window for every interval.
    steps = _steps(session, [first, *(min(max(start, first), last) for start in starts[1:]), last])
    since, until = (type_coerce(steps.c[name], UtcDateTime) for name in ("since", "until"))
    number = select(func.count()).where(*meant, at >= since, at < until).scalar_subquery()
    query = select(steps.c.n, number).where(steps.c.until.is_not(None)).order_by(steps.c.n)
    return [number for _, number in session.execute(query)]


def _steps(session: Session, bounds: Sequence[datetime]) -> Subquery:
    """Return rows ``(n, since, until)`` of consecutive bounds. All bounds are one bound value (an array on PostgreSQL,
    JSON on SQLite), so the statement's text does not depend on their number."""
    each: TableValuedAlias
    if bulk_sql.is_postgres(session.connection()):
        array = cast(list(bounds), ARRAY(DateTime(timezone=True)))
        each = func.unnest(array).table_valued("value", with_ordinality="key").render_derived()
    else:
        each = func.json_each(json.dumps([to_micros(at) for at in bounds])).table_valued("key", "value")
    following = func.lead(each.c.value).over(order_by=each.c.key)
    return select(each.c.key.label("n"), each.c.value.label("since"), following.label("until")).subquery()
