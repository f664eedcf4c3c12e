"""What activities earned, summed by days."""

import sqlalchemy as sa
from alembic import op

from campaigns import db

revision = "c4a9d2e81b57"
down_revision = "e94c7a1d30f6"

_BIG = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
_SUMS = {
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
_MORE = ", ".join(f"{name} = {{kept}}{name} + excluded.{name}" for name in _SUMS)
_SUMMED = {"life_earnings": ("activity_id",), "day_earnings": ("activity_id", "day")}
_DAY = {"sqlite": "{row}at / 86400000000 * 86400000000", "postgresql": "date_trunc('day', {row}at, 'UTC')"}


def _key(table: str, dialect: str, row: str = "") -> list[str]:
    return [_DAY[dialect].format(row=row) if name == "day" else row + name for name in _SUMMED[table]]


def _one(row: str, sign: str) -> str:
    sums = ", ".join(f"{sign}({sql.format(row=row)})" for sql in _SUMS.values())
    return " ".join(
        f"INSERT INTO {table} ({', '.join(names)}, part, {', '.join(_SUMS)})"
        f" SELECT {', '.join(_key(table, 'sqlite', row))}, 0, {sums}"
        f" WHERE true ON CONFLICT ({', '.join(names)}, part) DO UPDATE SET {_MORE.format(kept='')};"
        for table, names in _SUMMED.items()
    )


def _all(source: str, sign: str) -> str:
    sums = ", ".join(f"{sign}sum({sql.format(row='')})" for sql in _SUMS.values())
    return " ".join(
        f"INSERT INTO {table} AS kept ({', '.join(names)}, part, {', '.join(_SUMS)})"  # noqa: S608
        f" SELECT {', '.join(_key(table, 'postgresql'))}, pg_backend_pid() & 255, {sums} FROM {source}"
        f" GROUP BY {', '.join(str(place) for place in range(1, len(names) + 2))}"
        f" ORDER BY {', '.join(str(place) for place in range(1, len(names) + 2))}"
        f" ON CONFLICT ({', '.join(names)}, part) DO UPDATE SET {_MORE.format(kept='kept.')};"
        for table, names in _SUMMED.items()
    )


_SQLITE = (
    "DROP TRIGGER IF EXISTS earnings_inserted",
    "DROP TRIGGER IF EXISTS earnings_deleted",
    f"CREATE TRIGGER earnings_inserted AFTER INSERT ON earnings BEGIN {_one('NEW.', '')} END",
    f"CREATE TRIGGER earnings_deleted AFTER DELETE ON earnings BEGIN {_one('OLD.', '-')} END",
)
_POSTGRES = (
    "CREATE OR REPLACE FUNCTION sum_earnings() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN"
    f" IF TG_OP = 'INSERT' THEN {_all('changed', '')} ELSE {_all('changed', '-')} END IF;"
    " RETURN NULL; END $$",
)


def upgrade() -> None:
    op.create_table(
        "day_earnings",
        sa.Column("activity_id", _BIG, autoincrement=False, nullable=False),
        sa.Column("day", db.UtcDateTime(), nullable=False),
        sa.Column("part", sa.SmallInteger(), autoincrement=False, nullable=False),
        *(
            sa.Column(
                name,
                db.MoneyType()
                if name.endswith("value")
                else sa.Float()
                if name in ("first", "last")
                else sa.BigInteger(),
                nullable=False,
            )
            for name in _SUMS
        ),
        sa.PrimaryKeyConstraint("activity_id", "day", "part", name=op.f("pk_day_earnings")),
        sqlite_with_rowid=False,
    )
    dialect = op.get_bind().dialect.name
    if dialect == "postgresql":  # Whoever writes earnings meanwhile would be in neither the rows read nor the trigger.
        op.execute("LOCK TABLE earnings IN SHARE ROW EXCLUSIVE MODE")
    key = ", ".join(_key("day_earnings", dialect))
    sums = ", ".join(f"sum({sql.format(row='')})" for sql in _SUMS.values())
    op.execute(
        f"INSERT INTO day_earnings (activity_id, day, part, {', '.join(_SUMS)})"  # noqa: S608
        f" SELECT {key}, 0, {sums} FROM earnings GROUP BY {key} ORDER BY {key}"
    )
    for statement in _SQLITE if dialect == "sqlite" else _POSTGRES:
        op.get_bind().exec_driver_sql(statement.replace("%", "%%"))
