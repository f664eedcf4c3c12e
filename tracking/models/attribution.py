"""Attribution ledger: for each conversion and activity one row, with daily sums and all-time totals.

Report pages read these rows instead of joining conversions, touches and credits. The sums are maintained by database
triggers, like those of sends (:mod:`campaigns.delivery.sends.counters`), so that they follow every way of deleting a
conversion.
"""

from collections.abc import Callable, Mapping

from sqlalchemy import DDL, BigInteger, Float, ForeignKey, Integer, SmallInteger, event
from sqlalchemy.orm import Mapped, mapped_column

from campaigns.db import Base, BigId, Instant, Money


class ConversionAttribution(Base):
    """A conversion as seen from one activity: where it happened, that has credit for it, or that touched it."""

    __tablename__ = "conversion_attributions"
    __table_args__ = {"sqlite_with_rowid": False}

    activity_id: Mapped[int] = mapped_column(BigId, primary_key=True, autoincrement=False)
    at: Mapped[Instant] = mapped_column(primary_key=True)
    """When the conversion happened."""
    conversion_id: Mapped[int] = mapped_column(
        ForeignKey("conversions.id", ondelete="CASCADE"), primary_key=True, autoincrement=False, index=True
    )
    own: Mapped[int] = mapped_column(Integer)
    """1 when the conversion is counted for this activity, else 0. The counts below are 0 or 1, too."""
    value: Mapped[Money | None]
    """Value of the conversion when ``own`` is 1."""
    first: Mapped[float] = mapped_column(Float)
    """The activity's share under first touch, 0–1."""
    first_value: Mapped[Money | None]
    last: Mapped[float] = mapped_column(Float)
    last_value: Mapped[Money | None]
    touched: Mapped[int] = mapped_column(Integer)
    """1 when a touch of the activity by a person for certain precedes the conversion."""
    of_channel: Mapped[int] = mapped_column(Integer)
    """1 when that touch was the first of its channel in the campaign; the sum is the number of conversions a channel
    touched.
    """
    of_campaign: Mapped[int] = mapped_column(Integer)


class AttributionSums:
    """Columns of the sums over an activity's ledger rows. Money is 0 where no row has a value."""

    own: Mapped[int] = mapped_column(BigInteger)
    valued: Mapped[int] = mapped_column(BigInteger)
    """Number of own conversions that have a value."""
    value: Mapped[Money]
    first: Mapped[float] = mapped_column(Float)
    first_valued: Mapped[int] = mapped_column(BigInteger)
    first_value: Mapped[Money]
    last: Mapped[float] = mapped_column(Float)
    last_valued: Mapped[int] = mapped_column(BigInteger)
    last_value: Mapped[Money]
    touched: Mapped[int] = mapped_column(BigInteger)
    of_channel: Mapped[int] = mapped_column(BigInteger)
    of_campaign: Mapped[int] = mapped_column(BigInteger)


class DailyAttribution(AttributionSums, Base):
    """Attribution sums of an activity and UTC day.

    A period is the sum of the days within it and of ledger rows at its two ends.
    """

    __tablename__ = "daily_attributions"
    __table_args__ = {"sqlite_with_rowid": False}

    activity_id: Mapped[int] = mapped_column(BigId, primary_key=True, autoincrement=False)
    day: Mapped[Instant] = mapped_column(primary_key=True)
    """Start of the day."""
    shard: Mapped[int] = mapped_column(SmallInteger, primary_key=True, autoincrement=False)
    """0 on SQLite. On PostgreSQL ``pg_backend_pid() & 255``, so that concurrent transactions rarely update the same
    row. Only the sum over all parts is meaningful.
    """


class TotalAttribution(AttributionSums, Base):
    """Attribution sums of an activity over all time."""

    __tablename__ = "total_attributions"
    __table_args__ = {"sqlite_with_rowid": False}

    activity_id: Mapped[int] = mapped_column(BigId, primary_key=True, autoincrement=False)
    shard: Mapped[int] = mapped_column(SmallInteger, primary_key=True, autoincrement=False)
    """As in :class:`DailyAttribution`."""


SUM_EXPRESSIONS: Mapping[str, str] = {
    name: f"coalesce({{row}}{name}, 0)"
    if name.endswith("value")
    else f"CASE WHEN {{row}}{name.removesuffix('d')} IS NULL THEN 0 ELSE 1 END"
    if name.endswith("valued")
    else f"{{row}}{name}"
    for name in (
        "own",
        "valued",
        "value",
        "first",
        "first_valued",
        "first_value",
        "last",
        "last_valued",
        "last_value",
        "touched",
        "of_channel",
        "of_campaign",
    )
}
"""SQL expression that a ledger row adds to each sum; ``{row}`` is the row's prefix."""
_ADD_SQL = ", ".join(f"{name} = {{kept}}{name} + excluded.{name}" for name in SUM_EXPRESSIONS)
SUM_TABLE_KEYS: Mapping[str, tuple[str, ...]] = {
    "total_attributions": ("activity_id",),
    "daily_attributions": ("activity_id", "day"),
}
"""The tables of sums and their key columns without ``shard``."""
_DAY_SQL = {"sqlite": "{row}at / 86400000000 * 86400000000", "postgresql": "date_trunc('day', {row}at, 'UTC')"}


def key_expressions(table: str, dialect: str, row: str = "") -> list[str]:
    """SQL expressions of a sum table's key, computed from a ledger row; ``row`` is the prefix of its columns."""
    return [_DAY_SQL[dialect].format(row=row) if name == "day" else row + name for name in SUM_TABLE_KEYS[table]]


def _row_sql(table: str, row: str, sign: str) -> str:
    """SQLite: the statement that adds one row to a sum table."""
    key, names = ", ".join(key_expressions(table, "sqlite", row)), ", ".join(SUM_TABLE_KEYS[table])
    sums = ", ".join(f"{sign}({sql.format(row=row)})" for sql in SUM_EXPRESSIONS.values())
    return (
        f"INSERT INTO {table} ({names}, shard, {', '.join(SUM_EXPRESSIONS)}) SELECT {key}, 0, {sums}"
        f" WHERE true ON CONFLICT ({names}, shard) DO UPDATE SET {_ADD_SQL.format(kept='')};"
    )


def _rows_sql(table: str, source: str, sign: str) -> str:
    """PostgreSQL: the statement that adds all rows of a transition table to a sum table."""
    key, names = ", ".join(key_expressions(table, "postgresql")), ", ".join(SUM_TABLE_KEYS[table])
    places = ", ".join(str(place) for place in range(1, len(SUM_TABLE_KEYS[table]) + 2))
    sums = ", ".join(f"{sign}sum({sql.format(row='')})" for sql in SUM_EXPRESSIONS.values())
    return (
        f"INSERT INTO {table} AS kept ({names}, shard, {', '.join(SUM_EXPRESSIONS)})"  # noqa: S608
        f" SELECT {key}, pg_backend_pid() & 255, {sums} FROM {source} GROUP BY {places} ORDER BY {places}"
        f" ON CONFLICT ({names}, shard) DO UPDATE SET {_ADD_SQL.format(kept='kept.')};"
    )


def _each(sql: Callable[..., str], *of: str) -> str:
    return " ".join(sql(table, *of) for table in SUM_TABLE_KEYS)


# Ledger rows are deleted and inserted, never updated.
SQLITE_TRIGGERS = (
    "CREATE TRIGGER IF NOT EXISTS conversion_attributions_inserted AFTER INSERT ON conversion_attributions"
    f" BEGIN {_each(_row_sql, 'NEW.', '')} END",
    "CREATE TRIGGER IF NOT EXISTS conversion_attributions_deleted AFTER DELETE ON conversion_attributions"
    f" BEGIN {_each(_row_sql, 'OLD.', '-')} END",
)
POSTGRES_TRIGGERS = (
    "CREATE OR REPLACE FUNCTION sum_conversion_attributions() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN"
    f" IF TG_OP = 'INSERT' THEN {_each(_rows_sql, 'changed', '')} ELSE {_each(_rows_sql, 'changed', '-')} END IF;"
    " RETURN NULL; END $$",
    *(
        f"CREATE OR REPLACE TRIGGER conversion_attributions_{name} AFTER {what} ON conversion_attributions"
        f" REFERENCING {which} TABLE AS changed"
        " FOR EACH STATEMENT EXECUTE FUNCTION sum_conversion_attributions()"
        for name, what, which in (("inserted", "INSERT", "NEW"), ("deleted", "DELETE", "OLD"))
    ),
)
for _sums in (TotalAttribution, DailyAttribution):
    ConversionAttribution.__table__.add_is_dependent_on(_sums.__table__)  # type: ignore[attr-defined]
for _dialect, _statements in (("sqlite", SQLITE_TRIGGERS), ("postgresql", POSTGRES_TRIGGERS)):
    for _statement in _statements:
        _ddl = DDL(_statement.replace("%", "%%"))  # type: ignore[no-untyped-call]
        event.listen(Base.metadata, "after_create", _ddl.execute_if(dialect=_dialect))
