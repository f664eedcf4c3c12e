"""Daily rollups in the organisation's time zone, and totals over all time, summed from the 15-minute rollups.

They let a page about a year read days and a page about all time read totals (tests/benchmarks/pages.py). They are
written in the transaction that writes the 15-minute rollups, from the same numbers. The days belong to one time zone,
which is stored (:class:`~tracking.models.events.RollupTimeZone`). Queries for hours or for days of another zone fall
back to the 15-minute rollups, with the same result. After the organisation's time zone changed, the next count rebuilds
the days.
"""

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime, time, timedelta
from functools import lru_cache
from typing import Any, NamedTuple
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from sqlalchemy import ColumnElement, Connection, Table, null, select
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.orm import Session

from campaigns.accounts.models import Organisation
from campaigns.db import from_micros, to_micros
from tracking.counters import bulk_sql
from tracking.counters.periods import Window
from tracking.models.events import DailyHitRollup, HitRollup, RollupTimeZone, TotalHitRollup
from tracking.models.visits import DailyChannelRollup, DailyVisitRollup, TotalVisitRollup, VisitRollup

HITS = ("events", "uniques")
VISITS = ("visits", "visitors", "campaign_visitors", "engaged", "active_seconds", "pages", "new", "aggregate")


class HitSource(NamedTuple):
    """Table to read hit counts from, and its time column (``NO_TIME`` for totals)."""

    table: type[HitRollup] | type[DailyHitRollup] | type[TotalHitRollup]
    at: Any


class VisitSource(NamedTuple):
    """The same for visits. Days and totals have no channel group; ``DailyChannelRollup`` has it."""

    table: type[VisitRollup] | type[DailyVisitRollup] | type[TotalVisitRollup]
    at: Any


NO_TIME: ColumnElement[Any] = null()


def hits(session: Session, window: Window, *starts: datetime) -> HitSource:
    """The coarsest hit rollup that is exact for a window cut at ``starts``."""
    if not _fits(session, window, starts):
        return HitSource(HitRollup, HitRollup.bucket)
    return (
        HitSource(TotalHitRollup, NO_TIME)
        if window.whole and not starts
        else HitSource(DailyHitRollup, DailyHitRollup.day)
    )


def visits(session: Session, window: Window, *starts: datetime) -> VisitSource:
    """The coarsest visit rollup that is exact for a window cut at ``starts``."""
    if not _fits(session, window, starts):
        return VisitSource(VisitRollup, VisitRollup.bucket)
    return (
        VisitSource(TotalVisitRollup, NO_TIME)
        if window.whole and not starts
        else VisitSource(DailyVisitRollup, DailyVisitRollup.day)
    )


def _fits(session: Session, window: Window, starts: Sequence[datetime]) -> bool:
    kept = session.info.get("day zone")
    if kept is None:
        kept = session.info["day zone"] = session.scalar(select(RollupTimeZone.time_zone)) or ""
    instants = [at for at in (window.since, window.until, *starts) if at is not None]
    return bool(kept) and all(to_micros(at) == day_of(kept)(to_micros(at)) for at in instants)


@lru_cache(maxsize=16)
def day_of(zone: str) -> Callable[[int], int]:
    """Returns the function that maps an instant to the start of its local day, both in microseconds. A day starts at
    its first midnight, or where midnight would be when a clock change skips it; windows and charts use the same rule.
    """
    known = ZoneInfo(zone)

    @lru_cache(maxsize=100_000)
    def began(at: int) -> int:
        return to_micros(datetime.combine(from_micros(at).astimezone(known).date(), time(), known))

    return began


def add_hits(connection: Connection, rows: Iterable[tuple[tuple[int, ...], int, int]]) -> None:
    """Add to days and totals what is about to be added to 15-minute rollups: (activity, bucket, kind, link, label),
    events and uniques.
    """
    day = ready(connection)
    days: dict[tuple[int, ...], list[int]] = {}
    lives: dict[tuple[int, ...], list[int]] = {}
    for (activity_id, bucket, kind, link, label), *counts in rows:
        _add(days, (activity_id, link, day(bucket), kind, label), counts)
        _add(lives, (activity_id, link, kind, label), counts)
    _put(connection, DailyHitRollup, HITS, days)
    _put(connection, TotalHitRollup, HITS, lives)


def add_visits(connection: Connection, rows: Iterable[tuple[tuple[int, int, int, int], Sequence[int]]]) -> None:
    """The same for visits: (activity, bucket, channel group, label) and counts in the order of ``VISIT_COLUMNS``."""
    day = ready(connection)
    days: dict[tuple[int, ...], list[int]] = {}
    groups: dict[tuple[int, ...], list[int]] = {}
    lives: dict[tuple[int, ...], list[int]] = {}
    for (activity_id, bucket, group, label), counts in rows:
        _add(days, (activity_id, day(bucket), label), counts)
        _add(groups, (day(bucket), group, label), counts)
        _add(lives, (activity_id, label), counts)
    _put(connection, DailyVisitRollup, VISITS, days)
    _put(connection, DailyChannelRollup, VISITS, groups)
    _put(connection, TotalVisitRollup, VISITS, lives)


def _add(sums: dict[tuple[int, ...], list[int]], key: tuple[int, ...], counts: Sequence[int]) -> None:
    sums[key] = [was + more for was, more in zip(sums.get(key, [0] * len(counts)), counts, strict=True)]


def _put(
    connection: Connection,
    model: type[DailyHitRollup | DailyVisitRollup | DailyChannelRollup | TotalHitRollup | TotalVisitRollup],
    adds: Sequence[str],
    sums: Mapping[tuple[int, ...], Sequence[int]],
) -> None:
    table = model.__table__
    assert isinstance(table, Table)
    key = [column.name for column in table.primary_key]
    rows = [
        {name: from_micros(value) if name == "day" else value for name, value in zip(key, values, strict=True)}
        | dict(zip(adds, counts, strict=True))
        for values, counts in sorted(sums.items())
        if any(counts)
    ]
    if rows:
        statement: Any = (postgresql if bulk_sql.is_postgres(connection) else sqlite).insert(table)
        added = {name: table.c[name] + statement.excluded[name] for name in adds}
        connection.execute(statement.on_conflict_do_update(index_elements=key, set_=added), rows)


def ready(connection: Connection) -> Callable[[int], int]:
    """The day function of the organisation's current time zone. Rebuilds the days first when their zone is another one,
    so it must be called before 15-minute rollups change.
    """
    wanted = _our_zone(connection)
    if connection.scalar(select(RollupTimeZone.time_zone)) != wanted:
        fill(connection)
    return day_of(wanted)


def _our_zone(connection: Connection) -> str:
    try:
        return ZoneInfo(connection.scalar(select(Organisation.timezone)) or "UTC").key
    except (ZoneInfoNotFoundError, ValueError, OSError):
        return "UTC"


def fill(connection: Connection) -> None:
    """Rebuild days and totals in the organisation's time zone. The caller holds ``lock_counting``."""
    zone = _our_zone(connection)
    sum_anew(connection, zone)
    connection.execute(RollupTimeZone.__table__.delete())  # type: ignore[attr-defined]
    connection.execute(RollupTimeZone.__table__.insert().values(id=1, time_zone=zone))  # type: ignore[attr-defined]


def sum_anew(connection: Connection, zone: str, activity_id: int | None = None) -> None:
    """Rebuild days and totals (of an activity) from the 15-minute rollups. Channel group days are rebuilt only with all
    activities, or with 0.
    """
    only = "1 = 1" if activity_id is None else f"activity_id = {activity_id:d}"
    for quarters, days, lives, key, adds in (
        ("event_rollups", "event_rollups_daily", "event_rollups_total", ("activity_id", "kind", "link", "label"), HITS),
        ("visit_rollups", "visit_rollups_daily", "visit_rollups_total", ("activity_id", "label"), VISITS),
    ):
        for table in (days, lives):
            connection.exec_driver_sql(f"DELETE FROM {table} WHERE {only}")  # noqa: S608
        starts = _starts(connection, zone, quarters, only)
        if starts:
            _sum(connection, starts, f"(SELECT * FROM {quarters} WHERE {only})", days, key, adds)  # noqa: S608
            same, sums = ", ".join(key), ", ".join(f"sum({name})" for name in adds)
            connection.exec_driver_sql(
                f"INSERT INTO {lives} ({same}, {', '.join(adds)})"  # noqa: S608
                f" SELECT {same}, {sums} FROM {days} WHERE {only} GROUP BY {same}"
            )
    if not activity_id:
        connection.exec_driver_sql("DELETE FROM channel_rollups_daily")
        starts = _starts(connection, zone, "visit_rollups", "1 = 1")
        if starts:
            _sum(connection, starts, "visit_rollups", "channel_rollups_daily", ("channel_group", "label"), VISITS)


def _sum(
    connection: Connection, starts: Sequence[int], quarters: str, days: str, key: Sequence[str], adds: Sequence[str]
) -> None:
    same = ", ".join(f"q.{name}" for name in key)
    sums = ", ".join(f"sum(q.{name})" for name in adds)
    into = f"INSERT INTO {days} ({', '.join(key)}, {', '.join(adds)}, day) SELECT {same}, {sums},"
    if bulk_sql.is_postgres(connection):
        found = "(%s::timestamptz[])[width_bucket(q.bucket, %s::timestamptz[])]"
        instants = [from_micros(start) for start in starts]
        # Rows in the order of insertion of normal operation: the days of one page lie next to each other in the table.
        order = "began, " + same
        summed = f"{into} {found} AS began FROM {quarters} AS q GROUP BY {order} ORDER BY {order}"
        connection.exec_driver_sql(summed, (instants, instants))
    else:
        # Joined from the days, so that each day reads its buckets in the order of their primary key.
        connection.exec_driver_sql(
            f"{into} d.began FROM (SELECT DISTINCT activity_id FROM {quarters}) AS a"  # noqa: S608
            " CROSS JOIN (SELECT value AS began,"
            " lead(value) OVER (ORDER BY value) AS until FROM json_each(?)) AS d CROSS JOIN"
            f" {quarters} AS q ON q.activity_id = a.activity_id AND q.bucket >= d.began AND q.bucket < d.until"
            f" GROUP BY d.began, {same}",
            (json.dumps(starts),),
        )


def _starts(connection: Connection, zone: str, quarters: str, only: str) -> list[int]:
    """The starts, in microseconds, of all local days with buckets, and of the day after."""
    bounds = connection.exec_driver_sql(f"SELECT min(bucket), max(bucket) FROM {quarters} WHERE {only}").one()  # noqa: S608
    if bounds[0] is None:
        return []
    known, began = ZoneInfo(zone), day_of(zone)
    starts = [began(bulk_sql.micros(bounds[0]))]
    while starts[-1] <= bulk_sql.micros(bounds[1]):
        following = from_micros(starts[-1]).astimezone(known).date() + timedelta(days=1)
        starts.append(to_micros(datetime.combine(following, time(), known)))
    return starts


def mend(connection: Connection, activity_id: int | None = None) -> None:
    """Rebuild the days of an activity, if days are kept."""
    kept = connection.scalar(select(RollupTimeZone.time_zone))
    if kept is not None:
        sum_anew(connection, kept, activity_id)


def compare(connection: Connection, activity_id: int | None = None) -> list[tuple[tuple[Any, ...], Any, Any]]:
    """Days and totals (of an activity) that differ from the sum of their 15-minute rollups, as (key, stored, counted).
    Channel group days are compared with all activities, or with 0.
    """
    kept = connection.scalar(select(RollupTimeZone.time_zone))
    if kept is None:
        return []
    wrong: list[tuple[tuple[Any, ...], Any, Any]] = []
    sums: Sequence[tuple[Any, Any, Sequence[str]]] = (
        (HitRollup, DailyHitRollup, HITS),
        (HitRollup, TotalHitRollup, HITS),
        (VisitRollup, DailyVisitRollup, VISITS),
        (VisitRollup, TotalVisitRollup, VISITS),
    )
    if not activity_id:
        sums = *sums, (VisitRollup, DailyChannelRollup, VISITS)
    for quarters, summed, adds in sums:
        key = [column.name for column in summed.__table__.primary_key]
        only = None if summed is DailyChannelRollup else activity_id
        wanted = _summed(connection, quarters, [name.replace("day", "bucket") for name in key], adds, kept, only)
        found = _summed(connection, summed, key, adds, kept, only)
        wrong += [
            ((summed.__tablename__, *one), found.get(one), wanted.get(one))
            for one in sorted(wanted.keys() | found.keys())
            if found.get(one) != wanted.get(one)
        ]
    return wrong


def _summed(
    connection: Connection, table: Any, key: Sequence[str], adds: Sequence[str], zone: str, activity_id: int | None
) -> dict[tuple[int, ...], list[int]]:
    query = select(*(getattr(table, name) for name in (*key, *adds)))
    if activity_id is not None:
        query = query.where(table.activity_id == activity_id)
    day, sums = day_of(zone), dict[tuple[int, ...], list[int]]()
    for row in connection.execute(query):
        values = [day(to_micros(value)) if isinstance(value, datetime) else value for value in row[: len(key)]]
        _add(sums, tuple(values), row[len(key) :])
    return {one: counts for one, counts in sums.items() if any(counts)}
