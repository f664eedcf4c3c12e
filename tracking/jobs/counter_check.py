"""Consistency check of the counters against the raw events, and their rebuild."""

from collections.abc import Mapping
from typing import Any, NamedTuple

from sqlalchemy import Connection, select, union
from sqlalchemy.orm import Session

from campaigns.planning.models import Activity
from tracking.conversions import attribution_ledger
from tracking.counters import aggregation, breakdowns, bulk_sql, daily
from tracking.counters.bulk_sql import FirstSeenKey, RollupKey, from_driver_instant
from tracking.models.attribution import SUM_TABLE_KEYS
from tracking.models.events import HitKind, HitRollup, TrafficLabel

# Every event counts for its link and for link 0, the total of all links; a human click counts as an open, too.
_LINK_AND_TOTAL_SQL = """
    SELECT activity_id, send_id, kind, link, label, at FROM events WHERE {only}
    UNION ALL SELECT activity_id, send_id, kind, 0, label, at FROM events WHERE link <> 0 AND {only}
"""
_HUMAN_CONDITION = f"label = {TrafficLabel.HUMAN:d} AND send_id IS NOT NULL AND {{only}}"
_UNIQUES_SQL = f"""
    SELECT send_id, activity_id, kind, link, label, min(at) AS at FROM (
        {_LINK_AND_TOTAL_SQL.format(only=_HUMAN_CONDITION)}
        UNION ALL SELECT activity_id, send_id, {HitKind.OPEN:d}, 0, label, at FROM events
            WHERE kind = {HitKind.CLICK:d} AND {_HUMAN_CONDITION}
    ) AS marked GROUP BY send_id, activity_id, kind, link, label
"""  # noqa: S608
_FIRST_SEEN_SQL = f"""
    SELECT send_id, activity_id, kind, link, min(at) AS at FROM events WHERE {_HUMAN_CONDITION}
    GROUP BY send_id, activity_id, kind, link
"""  # noqa: S608
_FIRST_SEEN_COLUMNS = ", ".join(FirstSeenKey._fields)
_BUCKET_SQL = {
    "sqlite": f"at - at % {aggregation.BUCKET_MICROS}",
    "postgresql": "date_bin('15 minutes', at, timestamptz '1970-01-01 00:00+00')",
}


class CounterMismatch(NamedTuple):
    """A counter that differs from its source rows.

    The stored and expected values are (events, uniques) of a rollup, the instant in microseconds of a
    first-seen row, or the sums of a daily or all-time total. None stands for a missing row.
    """

    key: RollupKey | FirstSeenKey | tuple[Any, ...]
    stored: Any
    expected: Any


def recount_rollups(connection: Connection, activity_id: int | None = None) -> dict[RollupKey, tuple[int, int]]:
    """Compute (events, uniques) of every rollup from the raw events, of one activity or of all."""
    bucket = _BUCKET_SQL[connection.dialect.name]
    columns = f"activity_id, {bucket} AS bucket, kind, link, label"
    rollups: dict[RollupKey, tuple[int, int]] = {}
    for source, is_unique in ((_LINK_AND_TOTAL_SQL, False), (_UNIQUES_SQL, True)):
        rows = connection.exec_driver_sql(
            f"SELECT {columns}, count(*) FROM ({source.format(only=_condition(activity_id))}) AS counted"  # noqa: S608
            " GROUP BY 1, 2, 3, 4, 5"
        )
        for of_activity, start, kind, link, label, number in rows:
            key = RollupKey(of_activity, from_driver_instant(start), kind, link, label)
            events, uniques = rollups.get(key, (0, 0))
            rollups[key] = (events, uniques + number) if is_unique else (events + number, uniques)
    return rollups


def _condition(activity_id: int | None) -> str:
    return "1 = 1" if activity_id is None else f"activity_id = {activity_id:d}"


def stored_rollups(connection: Connection, activity_id: int | None = None) -> dict[RollupKey, tuple[int, int]]:
    """The stored (events, uniques) of every rollup, without those that are zero."""
    rows = connection.exec_driver_sql(
        "SELECT activity_id, bucket, kind, link, label, events, uniques FROM event_rollups"  # noqa: S608
        f" WHERE {_condition(activity_id)}"
    )
    return {
        RollupKey(row[0], from_driver_instant(row[1]), *row[2:5]): (row[5], row[6])
        for row in rows
        if (row[5], row[6]) != (0, 0)
    }


def begin_snapshot(session: Session) -> None:
    """Make this transaction read from one snapshot, so that concurrent counting doesn't look like a mismatch.

    Must be the first statement: PostgreSQL refuses to change the isolation level later. SQLite's read
    transactions are snapshots anyway.
    """
    if bulk_sql.is_postgres(connection := session.connection()):
        connection.exec_driver_sql("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY")


def find_mismatches(session: Session, activity_id: int | None = None) -> list[CounterMismatch]:
    """Compare all counters with their sources, of one activity or of all; empty when they are equal.

    Rollups and first-seen rows are compared with the raw events, daily totals with the rollups, visit
    breakdowns with the visits, and the attribution ledger with conversions, touchpoints and credit.
    """
    connection, condition = session.connection(), _condition(activity_id)
    stored_sql = f"SELECT {_FIRST_SEEN_COLUMNS}, at FROM first_seen WHERE {condition}"  # noqa: S608
    return [
        *_diff(stored_rollups(connection, activity_id), recount_rollups(connection, activity_id)),
        *_diff(
            _read_first_seen(connection, stored_sql),
            _read_first_seen(connection, _FIRST_SEEN_SQL.format(only=condition)),
        ),
        *(CounterMismatch(*wrong) for wrong in daily.find_differences(connection, activity_id)),
        *(CounterMismatch(*wrong) for wrong in breakdowns.find_differences(connection, activity_id)),
        *(CounterMismatch(*wrong) for wrong in attribution_ledger.find_mismatches(connection, activity_id)),
    ]


def _diff(stored: Mapping[Any, Any], expected: Mapping[Any, Any]) -> list[CounterMismatch]:
    return [
        CounterMismatch(key, stored.get(key), expected.get(key))
        for key in sorted(stored.keys() | expected.keys())
        if stored.get(key) != expected.get(key)
    ]


def _read_first_seen(connection: Connection, sql: str) -> dict[FirstSeenKey, int]:
    return {FirstSeenKey(*row[:4]): from_driver_instant(row[4]) for row in connection.exec_driver_sql(sql)}


def activity_ids(session: Session) -> list[int]:
    """Ids of all activities that have counters or may have events, for a check of one activity at a time.

    The id 0 stands for events and visits of no activity.
    """
    return [0, *session.scalars(union(select(Activity.id), select(HitRollup.activity_id)).order_by("id"))]


def rebuild(session: Session, activity_id: int | None = None) -> list[CounterMismatch]:
    """Rebuild the counters from the raw events, of one activity or of all; return the mismatches before.

    Nothing is written when there are none.
    """
    connection, condition = session.connection(), _condition(activity_id)
    bulk_sql.lock_counting(connection)
    mismatches = find_mismatches(session, activity_id)
    if mismatches:
        connection.exec_driver_sql(f"DELETE FROM first_seen WHERE {condition}")  # noqa: S608
        connection.exec_driver_sql(f"DELETE FROM event_rollups WHERE {condition}")  # noqa: S608
        insert_counters(connection, activity_id)
        daily.repair(connection, activity_id)
        breakdowns.repair(connection, activity_id)
        attribution_ledger.repair(
            connection, [one.key for one in mismatches if one.key[0] in ("conversion_attributions", *SUM_TABLE_KEYS)]
        )
    return mismatches


def insert_counters(connection: Connection, activity_id: int | None = None) -> None:
    """Insert first-seen rows and rollups from the raw events, of one activity or of all.

    The tables must hold no rows of the activity. Daily totals are not written.
    """
    condition, bucket = _condition(activity_id), _BUCKET_SQL[connection.dialect.name]
    connection.exec_driver_sql(
        f"INSERT INTO first_seen ({_FIRST_SEEN_COLUMNS}, at) {_FIRST_SEEN_SQL.format(only=condition)}"
    )
    columns = f"activity_id, {bucket} AS bucket, kind, link, label"
    # Not from the first_seen rows just written: their index starts with the send, not with the activity.
    connection.exec_driver_sql(
        f"INSERT INTO event_rollups ({', '.join(RollupKey._fields)}, events, uniques)"  # noqa: S608
        " SELECT activity_id, bucket, kind, link, label, sum(events), sum(uniques) FROM ("
        f" SELECT {columns}, 1 AS events, 0 AS uniques FROM ({_LINK_AND_TOTAL_SQL.format(only=condition)}) AS counted"
        f" UNION ALL SELECT {columns}, 0, 1 FROM ({_UNIQUES_SQL.format(only=condition)}) AS first"
        ") AS both_counts GROUP BY 1, 2, 3, 4, 5"
    )
