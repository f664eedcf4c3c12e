"""Breakdowns of human visits per activity: by landing page and traffic source, and by device and country.

Written in the transaction that writes the visits, so that a report page reads a few hundred rows instead of all visits
(tests/benchmarks/pages.py).
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from sqlalchemy import Connection, Table
from sqlalchemy.dialects import postgresql, sqlite

from tracking.counters import bulk_sql
from tracking.models.events import TrafficLabel
from tracking.models.visits import DeviceCountryCounts, LandingPageCounts

SUM_COLUMNS = ("visits", "engaged", "active_seconds")
_BREAKDOWNS: tuple[Any, ...] = (LandingPageCounts, DeviceCountryCounts)
_COUNTED_VISITS = f"activity_id IS NOT NULL AND label = {TrafficLabel.HUMAN:d}"
_SUMS_SQL = "count(*), sum(CASE WHEN engaged THEN 1 ELSE 0 END), sum(active_seconds)"

BreakdownKey = tuple[int, int, int, int, str]
"""(activity, entry page, arrival, device, country)"""


def add(connection: Connection, changes: Iterable[tuple[BreakdownKey, Sequence[int]]]) -> None:
    """Add counts, in the order of ``SUM_COLUMNS``, to both breakdowns of each key."""
    landing_sums, device_sums = dict[tuple[Any, ...], list[int]](), dict[tuple[Any, ...], list[int]]()
    for (activity_id, entry_id, arrival_id, device, country), counts in changes:
        for sums, key in (
            (landing_sums, (activity_id, entry_id, arrival_id)),
            (device_sums, (activity_id, device, country)),
        ):
            known = sums.setdefault(key, [0] * len(SUM_COLUMNS))
            known[:] = [was + more for was, more in zip(known, counts, strict=True)]
    _upsert(connection, LandingPageCounts, landing_sums)
    _upsert(connection, DeviceCountryCounts, device_sums)


def _upsert(connection: Connection, model: Any, sums: Mapping[tuple[Any, ...], Sequence[int]]) -> None:
    table: Table = model.__table__
    key = _key_columns(model)
    rows = [dict(zip((*key, *SUM_COLUMNS), (*one, *counts), strict=True)) for one, counts in sorted(sums.items())]
    if rows:
        statement: Any = (postgresql if bulk_sql.is_postgres(connection) else sqlite).insert(table)
        added = {name: table.c[name] + statement.excluded[name] for name in SUM_COLUMNS}
        connection.execute(statement.on_conflict_do_update(index_elements=key, set_=added), rows)


def _key_columns(model: Any) -> list[str]:
    return [column.name for column in model.__table__.primary_key]


def rebuild(connection: Connection, activity_id: int | None = None) -> None:
    """Rebuild the breakdowns (of an activity) from the visits. The caller holds ``lock_counting``."""
    for model in _BREAKDOWNS:
        key, only = ", ".join(_key_columns(model)), _activity_filter(activity_id)
        connection.exec_driver_sql(f"DELETE FROM {model.__tablename__} WHERE {only}")  # noqa: S608
        connection.exec_driver_sql(
            f"INSERT INTO {model.__tablename__} ({key}, {', '.join(SUM_COLUMNS)})"  # noqa: S608
            f" SELECT {key}, {_SUMS_SQL} FROM visits WHERE {_COUNTED_VISITS} AND {only} GROUP BY {key}"
        )


repair = rebuild


def find_differences(connection: Connection, activity_id: int | None = None) -> list[tuple[tuple[Any, ...], Any, Any]]:
    """Breakdown rows (of an activity) that differ from the sums of the visits, as (key, stored, counted)."""
    wrong: list[tuple[tuple[Any, ...], Any, Any]] = []
    for model in _BREAKDOWNS:
        key, only = ", ".join(_key_columns(model)), _activity_filter(activity_id)
        found, wanted = (
            {tuple(row[:3]): tuple(map(int, row[3:])) for row in connection.exec_driver_sql(sql)}
            for sql in (
                f"SELECT {key}, {', '.join(SUM_COLUMNS)} FROM {model.__tablename__} WHERE {only}",  # noqa: S608
                f"SELECT {key}, {_SUMS_SQL} FROM visits WHERE {_COUNTED_VISITS} AND {only} GROUP BY {key}",  # noqa: S608
            )
        )
        wrong += [
            ((model.__tablename__, *one), found.get(one), wanted.get(one))
            for one in sorted(wanted.keys() | found.keys())
            if found.get(one) != wanted.get(one)
        ]
    return wrong


def _activity_filter(activity_id: int | None) -> str:
    return "1 = 1" if activity_id is None else f"activity_id = {activity_id:d}"
