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
from tracking.counters.periods import ALL_TIME, Window
from tracking.metrics.queries import id_in, within
from tracking.models.events import HitKind, TrafficLabel

_MIN_INTERVALS = 12
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

    interval: Interval
    starts: Sequence[datetime]
    opens: Sequence[int]
    clicks: Sequence[int]
    views: Sequence[int]
    leads: Sequence[int]
    visits: Sequence[int] = ()

    @property
    def is_empty(self) -> bool:
        return not any((*self.opens, *self.clicks, *self.views, *self.leads, *self.visits))


def campaign_series(
    session: Session,
    campaign_id: int,
    zone: ZoneInfo,
    first: datetime,
    last: datetime,
    *,
    window: Window = ALL_TIME,
    labels: Sequence[TrafficLabel] = (TrafficLabel.HUMAN,),
    activities: Sequence[int] | None = None,
) -> TimeSeries:
    """Return opens, clicks, views, leads and visits of a campaign within a window, per interval from ``first`` to
    ``last``.

    Runs three queries, and one more when ``activities`` (the ids of the campaign's activities) is None.
    Hits before the first interval are counted in the first and hits after the last one in the last, so that each
    sequence adds up to the campaign's total.
    """
    interval = interval_for_span(last - first)
    starts = interval_starts(first, last, zone, interval)
    # As a list of ids: behind a subquery the planner cannot estimate how few they are and scans the whole table.
    if activities is None:
        activities = session.scalars(select(Activity.id).where(Activity.campaign_id == campaign_id)).all()
    hit_rollup, hit_at = daily.hit_source(session, window, *starts)
    hits = (
        select(hit_rollup.kind, hit_at, cast(func.sum(hit_rollup.events), Float))
        .where(id_in(session, hit_rollup.activity_id, activities), hit_rollup.link == 0, hit_rollup.label.in_(labels))
        .where(*within(hit_at, window))
        .group_by(hit_rollup.kind, hit_at)
    )
    visit_rollup, visit_at = daily.visit_source(session, window, *starts)
    visits = (
        select(literal(0), visit_at, cast(func.sum(visit_rollup.visits), Float))
        .where(id_in(session, visit_rollup.activity_id, activities), visit_rollup.label.in_(labels))
        .where(*within(visit_at, window))
        .group_by(visit_at)
    )
    hits_by_kind = _sum_by_interval(session, hits, starts)
    zeros = [0] * len(starts)
    return TimeSeries(
        interval,
        starts,
        hits_by_kind.get(HitKind.OPEN, zeros),
        hits_by_kind.get(HitKind.CLICK, zeros),
        hits_by_kind.get(HitKind.VIEW, zeros),
        _count_by_interval(session, Lead.created_at, window, starts, Lead.campaign_id == campaign_id),
        _sum_by_interval(session, visits, starts).get(0, zeros),
    )


def company_series(
    session: Session,
    zone: ZoneInfo,
    first: datetime,
    last: datetime,
    columns: Mapping[str, InstrumentedAttribute[datetime]],
) -> tuple[Interval, list[datetime], dict[str, list[int]]]:
    """Return ``(interval, starts, counts)`` for all campaigns from ``first`` to before ``last``.

    ``counts[name]`` is the number of rows per interval whose instant ``moments[name]`` lies in it; one query per name.
    """
    interval = interval_for_span(last - first)
    starts = [
        start for start in interval_starts(first, last - timedelta(microseconds=1), zone, interval) if start >= first
    ] or [first]
    window = Window(first, last)
    return interval, starts, {name: _count_by_interval(session, at, window, starts) for name, at in columns.items()}


def sparklines(session: Session, campaign_ids: Sequence[int], starts: Sequence[datetime]) -> dict[int, list[int]]:
    """Return human opens plus clicks per campaign id and interval, in one query. Hits before ``starts[0]`` are left
    out."""
    hit_rollup, at = daily.hit_source(session, ALL_TIME, *starts)
    query = (
        select(Activity.campaign_id, at, cast(func.sum(hit_rollup.events), Float))
        .join(Activity, Activity.id == hit_rollup.activity_id)
        .where(
            id_in(session, Activity.campaign_id, campaign_ids),
            hit_rollup.link == 0,
            hit_rollup.label == TrafficLabel.HUMAN,
            hit_rollup.kind.in_((HitKind.OPEN, HitKind.CLICK)),
            at >= starts[0],
        )
        .group_by(Activity.campaign_id, at)
    )
    return {campaign_id: [0] * len(starts) for campaign_id in campaign_ids} | _sum_by_interval(session, query, starts)


def interval_for_span(span: timedelta) -> Interval:
    """Return the finest interval that a chart of this length can show."""
    if span <= timedelta(hours=6):
        return Interval.QUARTER
    if span <= timedelta(hours=72):
        return Interval.HOUR
    return Interval.DAY if span <= timedelta(days=92) else Interval.WEEK


def interval_starts(first: datetime, last: datetime, zone: ZoneInfo, interval: Interval) -> list[datetime]:
    """Return the starts of all intervals from ``first`` to ``last`` in local time.

    Earlier intervals are prepended until there are at least twelve.
    """
    starts = [_interval_start(first, zone, interval)]
    while (next_start := _next_start(starts[-1], interval)) <= last:
        starts.append(next_start)
    while len(starts) < _MIN_INTERVALS:
        starts.insert(0, _interval_start(starts[0].astimezone(UTC) - timedelta(microseconds=1), zone, interval))
    return starts


def last_midnights(last: datetime, zone: ZoneInfo, number: int) -> list[datetime]:
    """Return the local midnights of the last ``number`` days in ascending order; the last one begins the day of
    ``last``."""
    today = last.astimezone(zone).replace(hour=0, minute=0, second=0, microsecond=0, fold=0)
    return [today - timedelta(days=back) for back in reversed(range(number))]


def _interval_start(at: datetime, zone: ZoneInfo, interval: Interval) -> datetime:
    local = at.astimezone(zone)
    if interval is Interval.QUARTER:
        return local.replace(minute=local.minute // 15 * 15, second=0, microsecond=0)
    if interval is Interval.HOUR:
        return local.replace(minute=0, second=0, microsecond=0)
    midnight = local.replace(hour=0, minute=0, second=0, microsecond=0, fold=0)
    return midnight - timedelta(days=midnight.weekday()) if interval is Interval.WEEK else midnight


def _next_start(start: datetime, interval: Interval) -> datetime:
    """Return the start of the next interval.

    Days and weeks advance in local time. Hours and quarters advance in UTC; otherwise the hour that is repeated at the
    end of summer time would be lost.
    """
    if interval in (Interval.DAY, Interval.WEEK):
        return start + timedelta(days=7 if interval is Interval.WEEK else 1)
    length = timedelta(minutes=15) if interval is Interval.QUARTER else timedelta(hours=1)
    return (start.astimezone(UTC) + length).astimezone(start.tzinfo)


def _sum_by_interval(session: Session, query: Select[Any], starts: Sequence[datetime]) -> dict[int, list[int]]:
    """Sum rows of ``(key, instant, number)`` by the interval of their instant; returns the sums by key."""
    bounds = [start.astimezone(UTC) for start in starts]  # UTC, as comparing aware local times needs two offsets each.
    columns: dict[int, list[int]] = {}
    for key, at, number in session.execute(query):
        column = columns.setdefault(key, [0] * len(starts))
        column[max(bisect_right(bounds, at) - 1, 0)] += int(number)
    return columns


def _count_by_interval(
    session: Session,
    at: InstrumentedAttribute[datetime],
    window: Window,
    starts: Sequence[datetime],
    *conditions: ColumnElement[bool],
) -> list[int]:
    """Count the rows of a window per interval in the database, with one index range per interval."""
    first, last = window.since or _EARLIEST, window.until or _LATEST
    # The window limits the interval bounds instead of being a condition of its own: with both conditions SQLite
    # would scan the whole window for every interval.
    intervals = _interval_bounds(session, [first, *(min(max(start, first), last) for start in starts[1:]), last])
    since, until = (type_coerce(intervals.c[name], UtcDateTime) for name in ("since", "until"))
    number = select(func.count()).where(*conditions, at >= since, at < until).scalar_subquery()
    query = select(intervals.c.n, number).where(intervals.c.until.is_not(None)).order_by(intervals.c.n)
    return [number for _, number in session.execute(query)]


def _interval_bounds(session: Session, bounds: Sequence[datetime]) -> Subquery:
    """Return rows ``(n, since, until)`` of consecutive bounds. All bounds are one bound value (an array on PostgreSQL,
    JSON on SQLite), so the statement's text does not depend on their number."""
    bound: TableValuedAlias
    if bulk_sql.is_postgres(session.connection()):
        array = cast(list(bounds), ARRAY(DateTime(timezone=True)))
        bound = func.unnest(array).table_valued("value", with_ordinality="key").render_derived()
    else:
        bound = func.json_each(json.dumps([to_micros(at) for at in bounds])).table_valued("key", "value")
    next_bound = func.lead(bound.c.value).over(order_by=bound.c.key)
    return select(bound.c.key.label("n"), bound.c.value.label("since"), next_bound.label("until")).subquery()
