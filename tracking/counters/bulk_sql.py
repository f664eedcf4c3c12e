"""Bulk SQL statements of the collector, through the driver's cursor, each with its variant for the other database.

Instants in and out are microseconds since 1970. Ids are passed as one array (PostgreSQL) or one JSON text (SQLite), so
a statement accepts any number of them. tests/benchmarks/collector.py measures the effect.
"""

import gc
import json
import struct
from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from operator import itemgetter
from typing import Any, NamedTuple

from sqlalchemy import Connection
from sqlalchemy.exc import DBAPIError

from campaigns.db import from_micros, to_micros
from tracking.models.events import MINUTE_SQL

_COUNTING_LOCK = 0x6B616D70  # "kamp": key of the advisory lock for counting


class EventRow(NamedTuple):
    """An event row as it is inserted; ``at`` in microseconds."""

    id: int
    at: int
    send_id: int | None
    network: int
    activity_id: int
    user_agent_id: int
    reasons: int
    kind: int
    label: int
    rules: int
    link: int


EventTuple = tuple[int, int, int | None, int, int, int, int, int, int, int, int]
""":class:`EventRow` as a plain tuple: the collector builds thousands at a time (tests/benchmarks/collector.py)."""


class RollupKey(NamedTuple):
    """Key of a rollup row; ``bucket`` in microseconds."""

    activity_id: int
    bucket: int
    kind: int
    link: int
    label: int


class FirstSeenKey(NamedTuple):
    """Key of a first-seen row."""

    send_id: int
    activity_id: int
    kind: int
    link: int


_EVENT_COLUMNS = ", ".join(f'"{name}"' for name in EventRow._fields)
_SEEN_COLUMNS = ", ".join(FirstSeenKey._fields)
_ROLLUP_COLUMNS = ", ".join(RollupKey._fields)


def is_postgres(connection: Connection) -> bool:
    return connection.dialect.name == "postgresql"


@contextmanager
def gc_paused() -> Iterator[None]:
    """Pause the garbage collector: a chunk allocates many tuples and no cycles, and each allocation counts towards the
    next collection (tests/benchmarks/collector.py).
    """
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()


def lock_counting(connection: Connection) -> None:
    """Let one transaction count at a time. SQLite has a single writer anyway; PostgreSQL takes an advisory lock."""
    if is_postgres(connection):
        connection.exec_driver_sql("SELECT pg_advisory_xact_lock(%s)", (_COUNTING_LOCK,))


def select_by_ids(connection: Connection, sql: str, ids: Collection[int], *values: Any) -> list[Any]:
    """Rows of a statement with ``IN {ids}`` once and ``{p}`` for each further parameter.

    ``{at}`` selects the column ``at`` in microseconds. Other instants come back in the driver's type: see
    :func:`from_driver_instant`.
    """
    postgres = is_postgres(connection)
    id_rows = "(SELECT unnest(%s::bigint[]))" if postgres else "(SELECT value FROM json_each(?))"
    statement = sql.format(ids=id_rows, p="%s" if postgres else "?", at=_MICROS_SQL if postgres else "at")
    parameter = _array_literal(ids) if postgres else json.dumps(list(ids))
    return _fetch_all(connection, statement, parameter, *values)


def select_rows(connection: Connection, sql: str, *values: Any) -> list[Any]:
    """Rows of a statement with ``{p}`` for each value, ``{at}`` as in :func:`select_by_ids`, and ``{minute}`` for the
    :class:`tracking.models.events.MinuteBucket` of ``at``.
    """
    words = ("%s", _MICROS_SQL, MINUTE_SQL.format(at="at")) if is_postgres(connection) else ("?", "at", "at")
    return _fetch_all(connection, sql.format(**dict(zip(("p", "at", "minute"), words, strict=True))), *values)


def _fetch_all(connection: Connection, statement: str, *values: Any) -> list[Any]:
    """All rows through the driver's cursor: plain tuples, without SQLAlchemy row objects."""
    with _driver_cursor(connection, statement) as cursor:
        cursor.execute(statement, values)
        return list(cursor.fetchall())


@contextmanager
def _driver_cursor(connection: Connection, statement: str) -> Iterator[Any]:
    """The driver's cursor. Its errors are raised as SQLAlchemy errors, and a lost connection is invalidated."""
    dialect, pooled = connection.dialect, connection.connection
    driver = dialect.loaded_dbapi
    cursor = pooled.cursor()
    try:
        yield cursor
    except driver.Error as error:
        is_disconnect = dialect.is_disconnect(error, pooled, cursor)
        if is_disconnect:
            connection.invalidate(error)
        wrapped = DBAPIError.instance(
            statement, None, error, driver.Error, connection_invalidated=is_disconnect, dialect=dialect
        )
        raise wrapped from error
    finally:
        with suppress(driver.Error):
            cursor.close()


def to_driver_instant(connection: Connection, micros: int) -> Any:
    """An instant in the type that the driver accepts."""
    return from_micros(micros) if is_postgres(connection) else micros


def from_driver_instant(value: Any) -> int:
    """Microseconds of an instant in the type that the driver returns."""
    return value if isinstance(value, int) else to_micros(value)


# PostgreSQL's binary COPY format: the number of fields, then each field after its length. Instants count from 2000.
_COPY_HEADER = b"PGCOPY\n\xff\r\n\0" + bytes(8)
_PACK_COPY_ROW = struct.Struct(">h iq iq iq iq ii ii ii ih ih ih ih").pack
_PACK_COPY_ROW_WITHOUT_SEND = struct.Struct(">h iq iq i iq ii ii ii ih ih ih ih").pack
_POSTGRES_EPOCH_MICROS = 946_684_800_000_000


def insert_events(connection: Connection, rows: Sequence[EventTuple]) -> None:
    """Append events (:class:`EventRow` as tuples). Fails as a whole when an id exists."""
    if is_postgres(connection):
        rows_copied = b"".join((_COPY_HEADER, *map(_copy_row, rows), b"\xff\xff"))
        statement = f"COPY events ({_EVENT_COLUMNS}) FROM STDIN (FORMAT BINARY)"
        with _driver_cursor(connection, statement) as cursor, cursor.copy(statement) as copy:
            copy.write(rows_copied)
    else:
        places = ", ".join("?" * len(EventRow._fields))
        connection.exec_driver_sql(f"INSERT INTO events ({_EVENT_COLUMNS}) VALUES ({places})", rows)  # noqa: S608


def _copy_row(row: EventTuple) -> bytes:
    id, at, send_id, network, activity_id, agent, reasons, kind, label, rules, link = row
    end = (8, network, 4, activity_id, 4, agent, 4, reasons, 2, kind, 2, label, 2, rules, 2, link)
    if send_id is None:
        return _PACK_COPY_ROW_WITHOUT_SEND(11, 8, id, 8, at - _POSTGRES_EPOCH_MICROS, -1, *end)
    return _PACK_COPY_ROW(11, 8, id, 8, at - _POSTGRES_EPOCH_MICROS, 8, send_id, *end)


def select_first_seen(connection: Connection, send_ids: Collection[int]) -> dict[tuple[int, ...], int]:
    """The first-seen instants of these sends in microseconds, by :class:`FirstSeenKey`."""
    rows = select_by_ids(
        connection,
        f"SELECT {_SEEN_COLUMNS}, {{at}} FROM first_seen WHERE send_id IN {{ids}}",  # noqa: S608
        send_ids,
    )
    return {(send_id, activity, kind, link): at for send_id, activity, kind, link, at in rows}


def upsert_first_seen(connection: Connection, entries: Iterable[tuple[tuple[int, ...], int]]) -> None:
    """Insert first-seen rows (:class:`FirstSeenKey` and microseconds); for existing keys replace the instant."""
    rows = sorted((*key, at) for key, at in entries)
    if not rows:
        return
    conflict = f"ON CONFLICT ({_SEEN_COLUMNS}) DO UPDATE SET at = excluded.at"
    if is_postgres(connection):
        connection.exec_driver_sql(
            f"INSERT INTO first_seen ({_SEEN_COLUMNS}, at) SELECT s, a, k, l, {_INSTANT_SQL} FROM unnest(%s::bigint[],"  # noqa: S608
            f" %s::int[], %s::smallint[], %s::smallint[], %s::bigint[]) AS u(s, a, k, l, at) {conflict}",
            _column_arrays(rows),
        )
    else:
        connection.exec_driver_sql(
            f"INSERT INTO first_seen ({_SEEN_COLUMNS}, at) VALUES (?, ?, ?, ?, ?) {conflict}",  # noqa: S608
            rows,
        )


# Conversion between microseconds and instants. Exact: the numbers are below 2^53, and the cast rounds.
_INSTANT_SQL = "timestamptz 'epoch' + at * interval '1 microsecond'"
# ``extract`` returns numeric: arbitrary-precision arithmetic for each row.
_MICROS_SQL = "(date_part('epoch', at) * 1000000)::bigint"


def _column_arrays(rows: Sequence[tuple[int | None, ...]]) -> tuple[str, ...]:
    return tuple(_array_literal(column) for column in zip(*rows, strict=True))


def _array_literal(numbers: Iterable[int | None]) -> str:
    """A PostgreSQL array literal. The driver's own array adaptation looks at every element twice."""
    return "{" + ",".join(map(str, numbers)).replace("None", "NULL") + "}"


def delete_first_seen(connection: Connection, keys: Iterable[tuple[int, ...]]) -> None:
    """Delete first-seen rows by :class:`FirstSeenKey`."""
    rows = sorted(keys)
    if not rows:
        return
    if is_postgres(connection):
        connection.exec_driver_sql(
            f"DELETE FROM first_seen WHERE ({_SEEN_COLUMNS}) IN (SELECT * FROM unnest(%s::bigint[], %s::int[],"  # noqa: S608
            " %s::smallint[], %s::smallint[]))",
            _column_arrays(rows),
        )
    else:
        where = " AND ".join(f"{name} = ?" for name in FirstSeenKey._fields)
        connection.exec_driver_sql(f"DELETE FROM first_seen WHERE {where}", rows)  # noqa: S608


def add_to_rollups(connection: Connection, counts: Iterable[tuple[tuple[int, ...], int, int]]) -> None:
    """Add events and uniques (either may be negative) to the rollups, by :class:`RollupKey`."""
    rows = sorted((*key, events, uniques) for key, events, uniques in counts if events or uniques)
    if not rows:
        return
    into = f"INSERT INTO event_rollups ({_ROLLUP_COLUMNS}, events, uniques)"
    conflict = (
        f"ON CONFLICT ({_ROLLUP_COLUMNS}) DO UPDATE SET"
        " events = event_rollups.events + excluded.events, uniques = event_rollups.uniques + excluded.uniques"
    )
    if is_postgres(connection):
        connection.exec_driver_sql(
            f"{into} SELECT a, {_INSTANT_SQL}, k, l, b, e, u FROM unnest(%s::bigint[], %s::bigint[], %s::smallint[],"  # noqa: S608
            f" %s::smallint[], %s::smallint[], %s::bigint[], %s::bigint[]) AS n(a, at, k, l, b, e, u) {conflict}",
            _column_arrays(rows),
        )
    else:
        connection.exec_driver_sql(f"{into} VALUES (?, ?, ?, ?, ?, ?, ?) {conflict}", rows)


class RelabelledEvent(NamedTuple):
    """New label of an event. ``send_id`` and ``at`` serve to find the row by an index."""

    id: int
    send_id: int | None
    at: int
    label: int
    reasons: int
    rules: int


_RELABEL_SQL = (
    "UPDATE events SET label = n.label, reasons = n.reasons, rules = n.rules FROM unnest(%s::bigint[], %s::bigint[],"
    " %s::bigint[], %s::smallint[], %s::int[], %s::smallint[]) AS n(id, send_id, at, label, reasons, rules)"
    " WHERE events.id = n.id AND "
)


def relabel_events(connection: Connection, changes: Collection[RelabelledEvent], *, settling: bool) -> None:
    """Update labels and reasons of events. ``settling`` states that all of them have the label SETTLING until now."""
    if not is_postgres(connection):
        rows = sorted((id, label, reasons, rules) for id, _send_id, _at, label, reasons, rules in changes)
        if rows:
            connection.exec_driver_sql(
                "UPDATE events SET label = ?, reasons = ?, rules = ? WHERE id = ?",
                [(label, reasons, rules, id) for id, label, reasons, rules in rows],
            )
        return
    if settling:
        _relabel(connection, changes, "events.label = 0")
        return
    _relabel(connection, [one for one in changes if one.send_id is not None], "events.send_id = n.send_id")
    without_send = [one for one in changes if one.send_id is None]
    if without_send:
        first, last = (from_micros(pick(one.at for one in without_send)) for pick in (min, max))
        _relabel(connection, without_send, "events.send_id IS NULL AND events.at BETWEEN %s AND %s", first, last)


def _relabel(connection: Connection, changes: Collection[RelabelledEvent], where: str, *more: Any) -> None:
    if changes:
        connection.exec_driver_sql(_RELABEL_SQL + where, (*_column_arrays(sorted(changes)), *more))


def set_milestones(connection: Connection, rows: Iterable[tuple[int, int | None, int | None, int | None]]) -> None:
    """Write (send id, first_opened_at, last_opened_at, clicked_at) in microseconds, in the order of ids."""
    values = sorted(rows, key=itemgetter(0))
    if not values:
        return
    if is_postgres(connection):
        first, last, clicked = (_INSTANT_SQL.replace(" at ", f" n.{name} ") for name in ("first", "last", "clicked"))
        connection.exec_driver_sql(
            f"UPDATE sends SET first_opened_at = {first}, last_opened_at = {last}, clicked_at = {clicked}"  # noqa: S608
            " FROM unnest(%s::bigint[], %s::bigint[], %s::bigint[], %s::bigint[]) AS n(id, first, last, clicked)"
            " WHERE sends.id = n.id",
            _column_arrays(values),
        )
    else:
        connection.exec_driver_sql(
            "UPDATE sends SET first_opened_at = ?, last_opened_at = ?, clicked_at = ? WHERE id = ?",
            [(first, last, clicked, id) for id, first, last, clicked in values],
        )


def widen_milestones(connection: Connection, rows: Iterable[tuple[int, int, int, int | None]]) -> None:
    """Extend the milestones of sends to include (send id, first open, last open, first click) in microseconds."""
    values = sorted(rows)
    if not values:
        return
    if is_postgres(connection):
        first, last, clicked = (_INSTANT_SQL.replace(" at ", f" n.{name} ") for name in ("first", "last", "clicked"))
        connection.exec_driver_sql(
            f"UPDATE sends SET first_opened_at = least(first_opened_at, {first}),"  # noqa: S608
            f" last_opened_at = greatest(last_opened_at, {last}), clicked_at = least(clicked_at, {clicked})"
            " FROM unnest(%s::bigint[], %s::bigint[], %s::bigint[], %s::bigint[]) AS n(id, first, last, clicked)"
            f" WHERE sends.id = n.id AND (first_opened_at IS NULL OR {first} < first_opened_at"
            f" OR last_opened_at IS NULL OR {last} > last_opened_at"
            f" OR {clicked} < coalesce(clicked_at, 'infinity'))",
            _column_arrays(values),
        )
    else:
        connection.exec_driver_sql(
            "UPDATE sends SET first_opened_at = min(coalesce(first_opened_at, ?2), ?2),"
            " last_opened_at = max(coalesce(last_opened_at, ?3), ?3),"
            " clicked_at = coalesce(min(clicked_at, ?4), clicked_at, ?4) WHERE id = ?1 AND (first_opened_at IS NULL"
            " OR ?2 < first_opened_at OR last_opened_at IS NULL OR ?3 > last_opened_at"
            " OR ?4 < coalesce(clicked_at, ?4 + 1))",
            values,
        )
