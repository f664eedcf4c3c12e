"""Consistency check of the counters against the raw events, and their rebuild."""

from collections.abc import Mapping
from typing import Any, NamedTuple

from sqlalchemy import Connection, select, union
from sqlalchemy.orm import Session

from campaigns.planning.models import Activity
from tracking.conversions import attribution_ledger
from tracking.counters import aggregation, breakdowns, bulk_sql, daily
from tracking.counters.bulk_sql import FirstSeenKey, RollupKey, micros
from tracking.models.attribution import SUMMED
from tracking.models.events import HitKind, HitRollup, TrafficLabel

# Every event counts for its link and for link 0, the total of all links; a human click counts as an open, too.
_MARKED = """
    SELECT activity_id, send_id, kind, link, label, at FROM events WHERE {only}
    UNION ALL SELECT activity_id, send_id, kind, 0, label, at FROM events WHERE link <> 0 AND {only}
"""
_HUMAN = f"label = {TrafficLabel.HUMAN:d} AND send_id IS NOT NULL AND {{only}}"
_FIRST = f"""
    SELECT send_id, activity_id, kind, link, label, min(at) AS at FROM (
        {_MARKED.format(only=_HUMAN)}
        UNION ALL SELECT activity_id, send_id, {HitKind.OPEN:d}, 0, label, at FROM events
            WHERE kind = {HitKind.CLICK:d} AND {_HUMAN}
    ) AS marked GROUP BY send_id, activity_id, kind, link, label
"""  # noqa: S608
_MARKS = f"""
    SELECT send_id, activity_id, kind, link, min(at) AS at FROM events WHERE {_HUMAN}
    GROUP BY send_id, activity_id, kind, link
"""  # noqa: S608
_KEY = ", ".join(FirstSeenKey._fields)
_BUCKET = {
    "sqlite": f"at - at % {aggregation.BUCKET}",
    "postgresql": "date_bin('15 minutes', at, timestamptz '1970-01-01 00:00+00')",
}


class CounterMismatch(NamedTuple):
    """A counter that differs from its source rows.

    The stored and expected values are (events, uniques) of a rollup, the instant in microseconds of a
    first-seen row, or the sums of a daily or all-time total. None stands for a missing row.
    """

    key: RollupKey | FirstSeenKey | tuple[Any, ...]
    kept: Any
    counted: Any


def recount(connection: Connection, activity_id: int | None = None) -> dict[RollupKey, tuple[int, int]]:
    """Compute (events, uniques) of every rollup from the raw events, of one activity or of all."""
    bucket = _BUCKET[connection.dialect.name]
    columns = f"activity_id, {bucket} AS bucket, kind, link, label"
    found: dict[RollupKey, tuple[int, int]] = {}
    for source, is_unique in ((_MARKED, False), (_FIRST, True)):
        rows = connection.exec_driver_sql(
            f"SELECT {columns}, count(*) FROM ({source.format(only=_only(activity_id))}) AS counted"  # noqa: S608
            " GROUP BY 1, 2, 3, 4, 5"
        )
        for of_activity, start, kind, link, label, number in rows:
            key = RollupKey(of_activity, micros(start), kind, link, label)
            events, uniques = found.get(key, (0, 0))
            found[key] = (events, uniques + number) if is_unique else (events + number, uniques)
    return found


def _only(activity_id: int | None) -> str:
    return "1 = 1" if activity_id is None else f"activity_id = {activity_id:d}"


def kept(connection: Connection, activity_id: int | None = None) -> dict[RollupKey, tuple[int, int]]:
    """The stored (events, uniques) of every rollup, without those that are zero."""
    rows = connection.exec_driver_sql(
        f"SELECT activity_id, bucket, kind, link, label, events, uniques FROM event_rollups WHERE {_only(activity_id)}"  # noqa: S608
    )
    return {
        RollupKey(row[0], micros(row[1]), *row[2:5]): (row[5], row[6]) for row in rows if (row[5], row[6]) != (0, 0)
    }


def freeze(session: Session) -> None:
    """Make this transaction read from one snapshot, so that concurrent counting doesn't look like a mismatch.

    Must be the first statement: PostgreSQL refuses to change the isolation level later. SQLite's read
    transactions are snapshots anyway.
    """
    if bulk_sql.is_postgres(connection := session.connection()):
        connection.exec_driver_sql("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY")


def compare(session: Session, activity_id: int | None = None) -> list[CounterMismatch]:
    """Compare all counters with their sources, of one activity or of all; empty when they are equal.

    Rollups and first-seen rows are compared with the raw events, daily totals with the rollups, visit
    breakdowns with the visits, and the attribution ledger with conversions, touchpoints and credit.
    """
    connection, only = session.connection(), _only(activity_id)
    marks = f"SELECT {_KEY}, at FROM first_seen WHERE {only}"  # noqa: S608
    return [
        *_differences(kept(connection, activity_id), recount(connection, activity_id)),
        *_differences(_marks(connection, marks), _marks(connection, _MARKS.format(only=only))),
        *(CounterMismatch(*wrong) for wrong in daily.compare(connection, activity_id)),
        *(CounterMismatch(*wrong) for wrong in breakdowns.compare(connection, activity_id)),
        *(CounterMismatch(*wrong) for wrong in attribution_ledger.compare(connection, activity_id)),
    ]


def _differences(stand: Mapping[Any, Any], counted: Mapping[Any, Any]) -> list[CounterMismatch]:
    return [
        CounterMismatch(key, stand.get(key), counted.get(key))
        for key in sorted(stand.keys() | counted.keys())
        if stand.get(key) != counted.get(key)
    ]


def _marks(connection: Connection, sql: str) -> dict[FirstSeenKey, int]:
    return {FirstSeenKey(*row[:4]): micros(row[4]) for row in connection.exec_driver_sql(sql)}


def activities(session: Session) -> list[int]:
    """Ids of all activities that have counters or may have events, for a check of one activity at a time.

    The id 0 stands for events and visits of no activity.
    """
    return [0, *session.scalars(union(select(Activity.id), select(HitRollup.activity_id)).order_by("id"))]


def rebuild(session: Session, activity_id: int | None = None) -> list[CounterMismatch]:
    """Rebuild the counters from the raw events, of one activity or of all; return the mismatches before.

    Nothing is written when there are none.
    """
    connection, only = session.connection(), _only(activity_id)
    bulk_sql.lock_counting(connection)
    wrong = compare(session, activity_id)
    if wrong:
        connection.exec_driver_sql(f"DELETE FROM first_seen WHERE {only}")  # noqa: S608
        connection.exec_driver_sql(f"DELETE FROM event_rollups WHERE {only}")  # noqa: S608
        fill(connection, activity_id)
        daily.mend(connection, activity_id)
        breakdowns.mend(connection, activity_id)
        attribution_ledger.mend(
            connection, [one.key for one in wrong if one.key[0] in ("conversion_attributions", *SUMMED)]
        )
    return wrong


def fill(connection: Connection, activity_id: int | None = None) -> None:
    """Insert first-seen rows and rollups from the raw events, of one activity or of all.

    The tables must hold no rows of the activity. Daily totals are not written.
    """
    only, bucket = _only(activity_id), _BUCKET[connection.dialect.name]
    connection.exec_driver_sql(f"INSERT INTO first_seen ({_KEY}, at) {_MARKS.format(only=only)}")
    columns = f"activity_id, {bucket} AS bucket, kind, link, label"
    # Not from the first_seen rows just written: their index starts with the send, not with the activity.
    connection.exec_driver_sql(
        f"INSERT INTO event_rollups ({', '.join(RollupKey._fields)}, events, uniques)"  # noqa: S608
        " SELECT activity_id, bucket, kind, link, label, sum(events), sum(uniques) FROM ("
        f" SELECT {columns}, 1 AS events, 0 AS uniques FROM ({_MARKED.format(only=only)}) AS counted"
        f" UNION ALL SELECT {columns}, 0, 1 FROM ({_FIRST.format(only=only)}) AS first"
        ") AS both_counts GROUP BY 1, 2, 3, 4, 5"
    )
