"""The collector's statements at the driver's speed, each beside its twin for the other database.

Instants are microseconds on both sides of this file. Ids go in as one array (PostgreSQL) or one
JSON text (SQLite), so that a statement takes any number of them.
"""

import json
from collections.abc import Collection, Iterable, Sequence
from typing import Any, NamedTuple

from sqlalchemy import Connection

from campaigns.db import from_micros, to_micros

_COUNTING = 0x6B616D70  # "kamp": the advisory lock under which events are counted


class EventRow(NamedTuple):
    spool_id: int
    offset: int
    at: int
    kind: int
    label: int
    reasons: int
    rules: int
    activity_id: int
    send_id: int | None
    link: int
    network: int
    user_agent_id: int


class CountKey(NamedTuple):
    """A row of the rollups; ``bucket`` in microseconds."""

    activity_id: int
    bucket: int
    kind: int
    link: int
    label: int


class MarkKey(NamedTuple):
    """A row of the first-seen marks."""

    send_id: int
    activity_id: int
    kind: int
    link: int
    label: int


_EVENT_COLUMNS = ", ".join(f'"{name}"' for name in EventRow._fields)
_MARK_COLUMNS = ", ".join(MarkKey._fields)
_COUNT_COLUMNS = ", ".join(CountKey._fields)


def is_postgres(connection: Connection) -> bool:
    return connection.dialect.name == "postgresql"


def lock_counting(connection: Connection) -> None:
    """One transaction counts at a time. SQLite has one writer anyway; PostgreSQL waits here."""
    if is_postgres(connection):
        connection.exec_driver_sql("SELECT pg_advisory_xact_lock(%s)", (_COUNTING,))


def select_by_ids(connection: Connection, sql: str, ids: Collection[int], *more: Any) -> list[Any]:
    """Rows of a statement that says ``IN {ids}`` once, and ``{p}`` for each further parameter.

    Instants come back as the driver gives them: see :func:`micros`.
    """
    postgres = is_postgres(connection)
    chosen = "(SELECT unnest(%s::bigint[]))" if postgres else "(SELECT value FROM json_each(?))"
    statement = sql.format(ids=chosen, p="%s" if postgres else "?")
    parameter = list(ids) if postgres else json.dumps(list(ids))
    return list(connection.exec_driver_sql(statement, (parameter, *more)).fetchall())


def instant(connection: Connection, micros: int) -> Any:
    """An instant as this database's driver takes it."""
    return from_micros(micros) if is_postgres(connection) else micros


def micros(value: Any) -> int:
    """An instant as this database's driver gives it."""
    return value if isinstance(value, int) else to_micros(value)


def insert_events(connection: Connection, rows: Sequence[EventRow]) -> None:
    if not is_postgres(connection):
        places = ", ".join("?" * len(EventRow._fields))
        connection.exec_driver_sql(f"INSERT INTO events ({_EVENT_COLUMNS}) VALUES ({places})", list(rows))  # noqa: S608
        return
    cursor = connection.connection.cursor()
    with cursor.copy(f"COPY events ({_EVENT_COLUMNS}) FROM STDIN (FORMAT BINARY)") as copy:
        copy.set_types(
            ("int4", "int8", "timestamptz", "int2", "int2", "int8", "int2", "int8", "int8", "int2", "int8", "int8")
        )
        for row in rows:
            copy.write_row((row[0], row[1], from_micros(row[2]), *row[3:]))
    cursor.close()


def marks_of(connection: Connection, send_ids: Collection[int]) -> dict[MarkKey, int]:
    """The first-seen marks of these sends."""
    rows = select_by_ids(
        connection, f"SELECT {_MARK_COLUMNS}, at FROM first_seen WHERE send_id IN {{ids}}", send_ids  # noqa: S608
    )  # fmt: skip
    return {MarkKey(*row[:5]): micros(row[5]) for row in rows}


def put_marks(connection: Connection, marks: Iterable[tuple[MarkKey, int]]) -> None:
    """Write marks, replacing the instant of those that exist."""
    rows = sorted((*key, at) for key, at in marks)
    if not rows:
        return
    conflict = f"ON CONFLICT ({_MARK_COLUMNS}) DO UPDATE SET at = excluded.at"
    if is_postgres(connection):
        columns = list(zip(*rows, strict=True))
        arrays = [list(column) for column in columns[:5]] + [[from_micros(at) for at in columns[5]]]
        connection.exec_driver_sql(
            f"INSERT INTO first_seen ({_MARK_COLUMNS}, at) SELECT * FROM unnest(%s::bigint[], %s::bigint[],"  # noqa: S608
            f" %s::smallint[], %s::smallint[], %s::smallint[], %s::timestamptz[]) {conflict}",
            tuple(arrays),
        )
    else:
        connection.exec_driver_sql(
            f"INSERT INTO first_seen ({_MARK_COLUMNS}, at) VALUES (?, ?, ?, ?, ?, ?) {conflict}", rows  # noqa: S608
        )  # fmt: skip


def drop_marks(connection: Connection, keys: Iterable[MarkKey]) -> None:
    rows = sorted(keys)
    if rows:
        p = "%s" if is_postgres(connection) else "?"
        where = " AND ".join(f"{name} = {p}" for name in MarkKey._fields)
        connection.exec_driver_sql(f"DELETE FROM first_seen WHERE {where}", [tuple(row) for row in rows])  # noqa: S608


def add_counts(connection: Connection, counts: Iterable[tuple[CountKey, int, int]]) -> None:
    """Add events and uniques (either may be negative) to the rollups."""
    rows = sorted((*key, events, uniques) for key, events, uniques in counts if events or uniques)
    if not rows:
        return
    into = f"INSERT INTO rollups ({_COUNT_COLUMNS}, events, uniques)"
    conflict = (
        f"ON CONFLICT ({_COUNT_COLUMNS}) DO UPDATE SET"
        " events = rollups.events + excluded.events, uniques = rollups.uniques + excluded.uniques"
    )
    if is_postgres(connection):
        columns = [list(column) for column in zip(*rows, strict=True)]
        columns[1] = [from_micros(at) for at in columns[1]]
        connection.exec_driver_sql(
            f"{into} SELECT * FROM unnest(%s::bigint[], %s::timestamptz[], %s::smallint[], %s::smallint[],"  # noqa: S608
            f" %s::smallint[], %s::bigint[], %s::bigint[]) {conflict}",
            tuple(columns),
        )
    else:
        connection.exec_driver_sql(f"{into} VALUES (?, ?, ?, ?, ?, ?, ?) {conflict}", rows)


def relabel_events(connection: Connection, changes: Sequence[tuple[int, int, int, int]]) -> None:
    """Give events (label, reasons, rules, id) their new label."""
    if changes:
        p = "%s" if is_postgres(connection) else "?"
        connection.exec_driver_sql(
            f"UPDATE events SET label = {p}, reasons = {p}, rules = {p} WHERE id = {p}",  # noqa: S608
            list(changes),
        )


def set_milestones(connection: Connection, rows: Sequence[tuple[int | None, int | None, int | None, int]]) -> None:
    """Write (first_opened_at, last_opened_at, clicked_at, send id), in the order of ids."""
    if rows:
        p = "%s" if is_postgres(connection) else "?"
        values = [
            (*(None if at is None else instant(connection, at) for at in row[:3]), row[3])
            for row in sorted(rows, key=lambda row: row[3])
        ]
        connection.exec_driver_sql(
            f"UPDATE sends SET first_opened_at = {p}, last_opened_at = {p}, clicked_at = {p} WHERE id = {p}",  # noqa: S608
            values,
        )
