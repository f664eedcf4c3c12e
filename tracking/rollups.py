"""Proof that the counters equal the rows behind them, and the way back when they don't."""

from typing import NamedTuple

from sqlalchemy import Connection
from sqlalchemy.orm import Session

from tracking import batches, counting
from tracking.batches import CountKey, MarkKey, micros
from tracking.models import Kind, Label

# Every event counts for its link and for all links together; a human click counts as an open.
_MARKED = """
    SELECT activity_id, send_id, kind, link, label, at FROM events
    UNION ALL SELECT activity_id, send_id, kind, 0, label, at FROM events WHERE link <> 0
"""
_FIRST = f"""
    SELECT send_id, activity_id, kind, link, label, min(at) AS at FROM (
        {_MARKED}
        UNION ALL SELECT activity_id, send_id, {Kind.OPEN:d}, 0, label, at FROM events
            WHERE kind = {Kind.CLICK:d} AND label = {Label.HUMAN:d}
    ) AS marked WHERE send_id IS NOT NULL AND label <> {Label.SETTLING:d}
    GROUP BY send_id, activity_id, kind, link, label
"""  # noqa: S608
_BUCKET = {
    "sqlite": f"at - at % {counting.BUCKET}",
    "postgresql": "date_bin('15 minutes', at, timestamptz '1970-01-01 00:00+00')",
}


class Difference(NamedTuple):
    """A counter that isn't what its rows add up to: (events, uniques), or a mark's instant."""

    key: CountKey | MarkKey
    kept: tuple[int, int] | int | None
    counted: tuple[int, int] | int | None


def recount(connection: Connection) -> dict[CountKey, tuple[int, int]]:
    """The rollups as the raw events say they should be. Reads every event."""
    bucket = _BUCKET[connection.dialect.name]
    columns = f"activity_id, {bucket} AS bucket, kind, link, label"
    found: dict[CountKey, tuple[int, int]] = {}
    for source, is_unique in ((_MARKED, False), (_FIRST, True)):
        rows = connection.exec_driver_sql(
            f"SELECT {columns}, count(*) FROM ({source}) AS counted GROUP BY 1, 2, 3, 4, 5"  # noqa: S608
        )
        for activity_id, start, kind, link, label, number in rows:
            key = CountKey(activity_id, micros(start), kind, link, label)
            events, uniques = found.get(key, (0, 0))
            found[key] = (events, uniques + number) if is_unique else (events + number, uniques)
    return found


def kept(connection: Connection) -> dict[CountKey, tuple[int, int]]:
    """The rollups as they stand; those that came down to nothing are left out."""
    rows = connection.exec_driver_sql("SELECT activity_id, bucket, kind, link, label, events, uniques FROM rollups")
    return {CountKey(row[0], micros(row[1]), *row[2:5]): (row[5], row[6]) for row in rows if (row[5], row[6]) != (0, 0)}


def compare(session: Session) -> list[Difference]:
    """Every rollup and every first-seen mark that differs from a raw recount; empty when all is well."""
    connection = session.connection()
    marks_kept = _marks(connection, "SELECT send_id, activity_id, kind, link, label, at FROM first_seen")
    marks_counted = _marks(connection, _FIRST)
    counts_kept, counts_counted = kept(connection), recount(connection)
    return [
        Difference(key, counts_kept.get(key), counts_counted.get(key))
        for key in sorted(counts_kept.keys() | counts_counted.keys())
        if counts_kept.get(key) != counts_counted.get(key)
    ] + [
        Difference(key, marks_kept.get(key), marks_counted.get(key))
        for key in sorted(marks_kept.keys() | marks_counted.keys())
        if marks_kept.get(key) != marks_counted.get(key)
    ]


def _marks(connection: Connection, sql: str) -> dict[MarkKey, int]:
    return {MarkKey(*row[:5]): micros(row[5]) for row in connection.exec_driver_sql(sql)}


def rebuild(session: Session) -> list[Difference]:
    """Write rollups and first-seen marks anew from the raw events; what was wrong before."""
    connection = session.connection()
    batches.lock_counting(connection)
    wrong = compare(session)
    if wrong:
        marks = _marks(connection, _FIRST)
        counts = recount(connection)
        connection.exec_driver_sql("DELETE FROM first_seen")
        connection.exec_driver_sql("DELETE FROM rollups")
        batches.put_marks(connection, marks.items())
        batches.add_counts(connection, ((key, *numbers) for key, numbers in counts.items()))
    return wrong
