"""SQL of imports that differs between SQLite and PostgreSQL, both variants side by side."""

from collections.abc import Sequence
from typing import Any

from sqlalchemy import JSON, Boolean, Column, Connection, MetaData, String, Table
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.functions import FunctionElement

from campaigns.db import Base, BigId

staged = Table(
    "staged_contacts",
    MetaData(),
    Column("row_number", BigId, primary_key=True, autoincrement=False),
    Column("email", String(254)),
    Column("address_hash", String(32)),
    Column("first_name", String(100)),
    Column("last_name", String(100)),
    Column("language", String(10)),
    Column("timezone", String(64)),
    Column("attributes", JSON),
    Column("evidence", JSON),
    prefixes=["TEMPORARY"],
)
"""Temporary table with one chunk of an import, on the connection that merges it."""


def fill_staged(connection: Connection, rows: Sequence[tuple[Any, ...]]) -> None:
    """Replace the staged rows. ``rows`` are in the order of the table's columns, with JSON as text."""
    connection.execute(staged.delete())
    if not rows:
        return
    names = ", ".join(staged.c.keys())
    if connection.dialect.name == "sqlite":
        placeholders = ", ".join("?" * len(staged.c))
        connection.exec_driver_sql(f"INSERT INTO staged_contacts ({names}) VALUES ({placeholders})", list(rows))  # noqa: S608
        return
    # A new temporary table has no statistics; with the default cost the planner scans all contacts for each chunk.
    connection.exec_driver_sql("SET LOCAL random_page_cost = 1.1")
    cursor = connection.connection.cursor()
    with cursor.copy(f"COPY staged_contacts ({names}) FROM STDIN") as copy:
        for row in rows:
            copy.write_row(row)


def insert_ignoring(connection: Connection, table: type[Base]) -> Any:
    """Return a dialect-specific INSERT that supports ON CONFLICT DO NOTHING."""
    insert = postgresql.insert if connection.dialect.name == "postgresql" else sqlite.insert
    return insert(table)


class json_merge(FunctionElement[Any]):
    """Merge two JSON objects at their top level; the second one's values win."""

    type = JSON()
    inherit_cache = True


class json_inequality(FunctionElement[bool]):
    """SQL expression that is true when two JSON values differ."""

    type = Boolean()
    inherit_cache = True


@compiles(json_merge, "sqlite")
def _merged_sqlite(element: json_merge, compiler: Any, **kw: Any) -> str:
    return f"json_patch({compiler.process(element.clauses, **kw)})"


@compiles(json_merge, "postgresql")
def _merged_postgresql(element: json_merge, compiler: Any, **kw: Any) -> str:
    first, second = (compiler.process(clause, **kw) for clause in element.clauses)
    return f"CAST(CAST({first} AS jsonb) || CAST({second} AS jsonb) AS json)"


@compiles(json_inequality, "sqlite")
def _differs_sqlite(element: json_inequality, compiler: Any, **kw: Any) -> str:
    first, second = (compiler.process(clause, **kw) for clause in element.clauses)
    return f"json({first}) <> json({second})"


@compiles(json_inequality, "postgresql")
def _differs_postgresql(element: json_inequality, compiler: Any, **kw: Any) -> str:
    first, second = (compiler.process(clause, **kw) for clause in element.clauses)
    return f"CAST({first} AS jsonb) <> CAST({second} AS jsonb)"
