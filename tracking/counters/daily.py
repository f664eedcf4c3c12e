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

HIT_COLUMNS = ("events", "uniques")
VISIT_COLUMNS = ("visits", "visitors", "campaign_visitors", "engaged", "active_seconds", "pages", "new", "aggregate")


class HitSource(NamedTuple):
    """Table to read hit counts from, and its time column (``NO_TIME`` for totals)."""

    table: type[HitRollup] | type[DailyHitRollup] | type[TotalHitRollup]
    at: Any


class VisitSource(NamedTuple):
    """The same for visits. Days and totals have no channel group; ``DailyChannelRollup`` has it."""

    table: type[VisitRollup] | type[DailyVisitRollup] | type[TotalVisitRollup]
    at: Any


NO_TIME: ColumnElement[Any] = null()


def hit_source(session: Session, window: Window, *starts: datetime) -> HitSource:
    """The coarsest hit rollup that is exact for a window cut at ``starts``."""
    if not _fits_daily_rollups(session, window, starts):
        return HitSource(HitRollup, HitRollup.bucket)
    return (
        HitSource(TotalHitRollup, NO_TIME)
        if window.is_all_time and not starts
        else HitSource(DailyHitRollup, DailyHitRollup.day)
    )


def visit_source(session: Session, window: Window, *starts: datetime) -> VisitSource:
    """The coarsest visit rollup that is exact for a window cut at ``starts``."""
    if not _fits_daily_rollups(session, window, starts):
        return VisitSource(VisitRollup, VisitRollup.bucket)
    return (
        VisitSource(TotalVisitRollup, NO_TIME)
        if window.is_all_time and not starts
        else VisitSource(DailyVisitRollup, DailyVisitRollup.day)
    )


def _fits_daily_rollups(session: Session, window: Window, starts: Sequence[datetime]) -> bool:
    zone = session.info.get("day zone")
    if zone is None:
        zone = session.info["day zone"] = session.scalar(select(RollupTimeZone.time_zone)) or ""
    instants = [at for at in (window.since, window.until, *starts) if at is not None]
    return bool(zone) and all(to_micros(at) == day_start_in(zone)(to_micros(at)) for at in instants)


@lru_cache(maxsize=16)
def day_start_in(zone: str) -> Callable[[int], int]:
    """Returns the function that maps an instant to the start of its local day, both in microseconds. A day starts at
    its first midnight, or where midnight would be when a clock change skips it; windows and charts use the same rule.
    """
    tz = ZoneInfo(zone)

    @lru_cache(maxsize=100_000)
    def day_start(at: int) -> int:
        return to_micros(datetime.combine(from_micros(at).astimezone(tz).date(), time(), tz))

    return day_start


def add_hits(connection: Connection, rows: Iterable[tuple[tuple[int, ...], int, int]]) -> None:
    """Add to days and totals what is about to be added to 15-minute rollups: (activity, bucket, kind, link, label),
    events and uniques.
    """
    day = ensure_zone_current(connection)
    days: dict[tuple[int, ...], list[int]] = {}
    totals: dict[tuple[int, ...], list[int]] = {}
    for (activity_id, bucket, kind, link, label), *counts in rows:
        _add(days, (activity_id, link, day(bucket), kind, label), counts)
        _add(totals, (activity_id, link, kind, label), counts)
    _upsert(connection, DailyHitRollup, HIT_COLUMNS, days)
    _upsert(connection, TotalHitRollup, HIT_COLUMNS, totals)


def add_visits(connection: Connection, rows: Iterable[tuple[tuple[int, int, int, int], Sequence[int]]]) -> None:
    """The same for visits: (activity, bucket, channel group, label) and counts in the order of ``VISIT_COLUMNS``."""
    day = ensure_zone_current(connection)
    days: dict[tuple[int, ...], list[int]] = {}
    groups: dict[tuple[int, ...], list[int]] = {}
    totals: dict[tuple[int, ...], list[int]] = {}
    for (activity_id, bucket, group, label), counts in rows:
        _add(days, (activity_id, day(bucket), label), counts)
        _add(groups, (day(bucket), group, label), counts)
        _add(totals, (activity_id, label), counts)
    _upsert(connection, DailyVisitRollup, VISIT_COLUMNS, days)
    _upsert(connection, DailyChannelRollup, VISIT_COLUMNS, groups)
    _upsert(connection, TotalVisitRollup, VISIT_COLUMNS, totals)


def _add(sums: dict[tuple[int, ...], list[int]], key: tuple[int, ...], counts: Sequence[int]) -> None:
    sums[key] = [was + more for was, more in zip(sums.get(key, [0] * len(counts)), counts, strict=True)]


def _upsert(
    connection: Connection,
    model: type[DailyHitRollup | DailyVisitRollup | DailyChannelRollup | TotalHitRollup | TotalVisitRollup],
    columns: Sequence[str],
    sums: Mapping[tuple[int, ...], Sequence[int]],
) -> None:
    table = model.__table__
    assert isinstance(table, Table)
    key = [column.name for column in table.primary_key]
    rows = [
        {name: from_micros(value) if name == "day" else value for name, value in zip(key, values, strict=True)}
        | dict(zip(columns, counts, strict=True))
        for values, counts in sorted(sums.items())
        if any(counts)
    ]
    if rows:
        statement: Any = (postgresql if bulk_sql.is_postgres(connection) else sqlite).insert(table)
        added = {name: table.c[name] + statement.excluded[name] for name in columns}
        connection.execute(statement.on_conflict_do_update(index_elements=key, set_=added), rows)


def ensure_zone_current(connection: Connection) -> Callable[[int], int]:
    """The day function of the organisation's current time zone. Rebuilds the days first when their zone is another one,
    so it must be called before 15-minute rollups change.
    """
    zone = _organisation_zone(connection)
    if connection.scalar(select(RollupTimeZone.time_zone)) != zone:
        rebuild(connection)
    return day_start_in(zone)


def _organisation_zone(connection: Connection) -> str:
    try:
        return ZoneInfo(connection.scalar(select(Organisation.timezone)) or "UTC").key
    except (ZoneInfoNotFoundError, ValueError, OSError):
        return "UTC"


def rebuild(connection: Connection) -> None:
    """Rebuild days and totals in the organisation's time zone. The caller holds ``lock_counting``."""
    zone = _organisation_zone(connection)
    rebuild_in_zone(connection, zone)
    connection.execute(RollupTimeZone.__table__.delete())  # type: ignore[attr-defined]
    connection.execute(RollupTimeZone.__table__.insert().values(id=1, time_zone=zone))  # type: ignore[attr-defined]


def rebuild_in_zone(connection: Connection, zone: str, activity_id: int | None = None) -> None:
    """Rebuild days and totals (of an activity) from the 15-minute rollups. Channel group days are rebuilt only with all
    activities, or with 0.
    """
    where = "1 = 1" if activity_id is None else f"activity_id = {activity_id:d}"
    for quarters, days, totals, key, adds in (
        (
            "event_rollups",
            "event_rollups_daily",
            "event_rollups_total",
            ("activity_id", "kind", "link", "label"),
            HIT_COLUMNS,
        ),
        ("visit_rollups", "visit_rollups_daily", "visit_rollups_total", ("activity_id", "label"), VISIT_COLUMNS),
    ):
        for table in (days, totals):
            connection.exec_driver_sql(f"DELETE FROM {table} WHERE {where}")  # noqa: S608
        starts = _day_starts(connection, zone, quarters, where)
        if starts:
            _insert_daily_sums(connection, starts, f"(SELECT * FROM {quarters} WHERE {where})", days, key, adds)  # noqa: S608
            same, sums = ", ".join(key), ", ".join(f"sum({name})" for name in adds)
            connection.exec_driver_sql(
                f"INSERT INTO {totals} ({same}, {', '.join(adds)})"  # noqa: S608
                f" SELECT {same}, {sums} FROM {days} WHERE {where} GROUP BY {same}"
            )
    if not activity_id:
        connection.exec_driver_sql("DELETE FROM channel_rollups_daily")
        starts = _day_starts(connection, zone, "visit_rollups", "1 = 1")
        if starts:
            _insert_daily_sums(
                connection, starts, "visit_rollups", "channel_rollups_daily", ("channel_group", "label"), VISIT_COLUMNS
            )


def _insert_daily_sums(
    connection: Connection, starts: Sequence[int], buckets: str, days: str, key: Sequence[str], columns: Sequence[str]
) -> None:
    key_columns = ", ".join(f"q.{name}" for name in key)
    sums = ", ".join(f"sum(q.{name})" for name in columns)
    into = f"INSERT INTO {days} ({', '.join(key)}, {', '.join(columns)}, day) SELECT {key_columns}, {sums},"
    if bulk_sql.is_postgres(connection):
        found = "(%s::timestamptz[])[width_bucket(q.bucket, %s::timestamptz[])]"
        instants = [from_micros(start) for start in starts]
        # Rows in the order of insertion of normal operation: the days of one page lie next to each other in the table.
        order = "began, " + key_columns
        summed = f"{into} {found} AS began FROM {buckets} AS q GROUP BY {order} ORDER BY {order}"
        connection.exec_driver_sql(summed, (instants, instants))
    else:
        # Joined from the days, so that each day reads its buckets in the order of their primary key.
        connection.exec_driver_sql(
            f"{into} d.began FROM (SELECT DISTINCT activity_id FROM {buckets}) AS a"  # noqa: S608
            " CROSS JOIN (SELECT value AS began,"
            " lead(value) OVER (ORDER BY value) AS until FROM json_each(?)) AS d CROSS JOIN"
            f" {buckets} AS q ON q.activity_id = a.activity_id AND q.bucket >= d.began AND q.bucket < d.until"
            f" GROUP BY d.began, {key_columns}",
            (json.dumps(starts),),
        )


def _day_starts(connection: Connection, zone: str, buckets: str, where: str) -> list[int]:
    """The starts, in microseconds, of all local days with buckets, and of the day after."""
    bounds = connection.exec_driver_sql(f"SELECT min(bucket), max(bucket) FROM {buckets} WHERE {where}").one()  # noqa: S608
    if bounds[0] is None:
        return []
    known, began = ZoneInfo(zone), day_start_in(zone)
    starts = [began(bulk_sql.from_driver_instant(bounds[0]))]
    while starts[-1] <= bulk_sql.from_driver_instant(bounds[1]):
        following = from_micros(starts[-1]).astimezone(known).date() + timedelta(days=1)
        starts.append(to_micros(datetime.combine(following, time(), known)))
    return starts


def repair(connection: Connection, activity_id: int | None = None) -> None:
    """Rebuild the days of an activity, if days are kept."""
    zone = connection.scalar(select(RollupTimeZone.time_zone))
    if zone is not None:
        rebuild_in_zone(connection, zone, activity_id)


def find_differences(connection: Connection, activity_id: int | None = None) -> list[tuple[tuple[Any, ...], Any, Any]]:
    """Days and totals (of an activity) that differ from the sum of their 15-minute rollups, as (key, stored, counted).
    Channel group days are compared with all activities, or with 0.
    """
    zone = connection.scalar(select(RollupTimeZone.time_zone))
    if zone is None:
        return []
    differences: list[tuple[tuple[Any, ...], Any, Any]] = []
    sums: Sequence[tuple[Any, Any, Sequence[str]]] = (
        (HitRollup, DailyHitRollup, HIT_COLUMNS),
        (HitRollup, TotalHitRollup, HIT_COLUMNS),
        (VisitRollup, DailyVisitRollup, VISIT_COLUMNS),
        (VisitRollup, TotalVisitRollup, VISIT_COLUMNS),
    )
    if not activity_id:
        sums = *sums, (VisitRollup, DailyChannelRollup, VISIT_COLUMNS)
    for quarters, summed, adds in sums:
        key = [column.name for column in summed.__table__.primary_key]
        only = None if summed is DailyChannelRollup else activity_id
        wanted = _sums_by_key(connection, quarters, [name.replace("day", "bucket") for name in key], adds, zone, only)
        found = _sums_by_key(connection, summed, key, adds, zone, only)
        differences += [
            ((summed.__tablename__, *one), found.get(one), wanted.get(one))
            for one in sorted(wanted.keys() | found.keys())
            if found.get(one) != wanted.get(one)
        ]
    return differences


def _sums_by_key(
    connection: Connection, table: Any, key: Sequence[str], columns: Sequence[str], zone: str, activity_id: int | None
) -> dict[tuple[int, ...], list[int]]:
    query = select(*(getattr(table, name) for name in (*key, *columns)))
    if activity_id is not None:
        query = query.where(table.activity_id == activity_id)
    day, sums = day_start_in(zone), dict[tuple[int, ...], list[int]]()
    for row in connection.execute(query):
        values = [day(to_micros(value)) if isinstance(value, datetime) else value for value in row[: len(key)]]
        _add(sums, tuple(values), row[len(key) :])
    return {one: counts for one, counts in sums.items() if any(counts)}
