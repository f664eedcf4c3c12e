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

SUMS = ("visits", "engaged", "active_seconds")
_SIDES: tuple[Any, ...] = (LandingPageCounts, DeviceCountryCounts)
_WHERE = f"activity_id IS NOT NULL AND label = {TrafficLabel.HUMAN:d}"
_COUNTED = "count(*), sum(CASE WHEN engaged THEN 1 ELSE 0 END), sum(active_seconds)"

Place = tuple[int, int, int, int, str]
"""(activity, entry page, arrival, device, country)"""


def add(connection: Connection, changes: Iterable[tuple[Place, Sequence[int]]]) -> None:
    """Add counts, in the order of ``SUM_COLUMNS``, to both breakdowns of each key."""
    landings, whereabouts = dict[tuple[Any, ...], list[int]](), dict[tuple[Any, ...], list[int]]()
    for (activity_id, entry_id, arrival_id, device, country), counts in changes:
        for sums, key in (
            (landings, (activity_id, entry_id, arrival_id)),
            (whereabouts, (activity_id, device, country)),
        ):
            known = sums.setdefault(key, [0] * len(SUMS))
            known[:] = [was + more for was, more in zip(known, counts, strict=True)]
    _put(connection, LandingPageCounts, landings)
    _put(connection, DeviceCountryCounts, whereabouts)


def _put(connection: Connection, model: Any, sums: Mapping[tuple[Any, ...], Sequence[int]]) -> None:
    table: Table = model.__table__
    key = _key(model)
    rows = [dict(zip((*key, *SUMS), (*one, *counts), strict=True)) for one, counts in sorted(sums.items())]
    if rows:
        statement: Any = (postgresql if bulk_sql.is_postgres(connection) else sqlite).insert(table)
        added = {name: table.c[name] + statement.excluded[name] for name in SUMS}
        connection.execute(statement.on_conflict_do_update(index_elements=key, set_=added), rows)


def _key(model: Any) -> list[str]:
    return [column.name for column in model.__table__.primary_key]


def fill(connection: Connection, activity_id: int | None = None) -> None:
    """Rebuild the breakdowns (of an activity) from the visits. The caller holds ``lock_counting``."""
    for model in _SIDES:
        key, only = ", ".join(_key(model)), _only(activity_id)
        connection.exec_driver_sql(f"DELETE FROM {model.__tablename__} WHERE {only}")  # noqa: S608
        connection.exec_driver_sql(
            f"INSERT INTO {model.__tablename__} ({key}, {', '.join(SUMS)})"  # noqa: S608
            f" SELECT {key}, {_COUNTED} FROM visits WHERE {_WHERE} AND {only} GROUP BY {key}"
        )


mend = fill


def compare(connection: Connection, activity_id: int | None = None) -> list[tuple[tuple[Any, ...], Any, Any]]:
    """Breakdown rows (of an activity) that differ from the sums of the visits, as (key, stored, counted)."""
    wrong: list[tuple[tuple[Any, ...], Any, Any]] = []
    for model in _SIDES:
        key, only = ", ".join(_key(model)), _only(activity_id)
        found, wanted = (
            {tuple(row[:3]): tuple(map(int, row[3:])) for row in connection.exec_driver_sql(sql)}
            for sql in (
                f"SELECT {key}, {', '.join(SUMS)} FROM {model.__tablename__} WHERE {only}",  # noqa: S608
                f"SELECT {key}, {_COUNTED} FROM visits WHERE {_WHERE} AND {only} GROUP BY {key}",  # noqa: S608
            )
        )
        wrong += [
            ((model.__tablename__, *one), found.get(one), wanted.get(one))
            for one in sorted(wanted.keys() | found.keys())
            if found.get(one) != wanted.get(one)
        ]
    return wrong


def _only(activity_id: int | None) -> str:
    return "1 = 1" if activity_id is None else f"activity_id = {activity_id:d}"
