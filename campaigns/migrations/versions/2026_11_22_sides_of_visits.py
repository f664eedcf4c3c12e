"""Days of visits by activity, and by channel group; visits counted by landing page, device and country."""

from typing import Any

import sqlalchemy as sa
from alembic import op

from campaigns import db

revision = "e94c7a1d30f6"
down_revision = "b7e15c94d203"

_BIG = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
_SUMS = ("visits", "visitors", "campaign_visitors", "engaged", "active_seconds", "pages", "new", "aggregate")
_SIDE_SUMS = ("visits", "engaged", "active_seconds")


def _big(name: str) -> sa.Column[int]:
    return sa.Column(name, _BIG, autoincrement=False, nullable=False)


def _small(name: str) -> sa.Column[int]:
    return sa.Column(name, sa.SmallInteger(), autoincrement=False, nullable=False)


def _day() -> sa.Column[Any]:
    return sa.Column("day", db.UtcDateTime(), nullable=False)


def _table(name: str, key: list[sa.Column[Any]], sums: tuple[str, ...]) -> None:
    op.create_table(
        name,
        *key,
        *(sa.Column(one, _BIG, nullable=False) for one in sums),
        sa.PrimaryKeyConstraint(*(column.name for column in key), name=op.f(f"pk_{name}")),
        sqlite_with_rowid=False,
    )


def upgrade() -> None:
    op.rename_table("day_visits", "old_day_visits")
    if op.get_bind().dialect.name == "postgresql":
        op.execute("ALTER INDEX pk_day_visits RENAME TO pk_old_day_visits")
    _table("day_visits", [_big("activity_id"), _day(), _small("label")], _SUMS)
    _table("day_groups", [_day(), _small("channel_group"), _small("label")], _SUMS)
    sums = ", ".join(f"sum({name})" for name in _SUMS)
    for table, key in (("day_visits", "activity_id, day, label"), ("day_groups", "day, channel_group, label")):
        op.execute(
            f"INSERT INTO {table} ({key}, {', '.join(_SUMS)})"  # noqa: S608
            f" SELECT {key}, {sums} FROM old_day_visits GROUP BY {key}"
        )
    op.drop_table("old_day_visits")
    counted = "count(*), sum(CASE WHEN engaged THEN 1 ELSE 0 END), sum(active_seconds)"
    country = sa.Column("country", sa.String(length=2), nullable=False)
    for table, key_columns in (
        ("landings", [_big("activity_id"), _big("entry_id"), _big("arrival_id")]),
        ("whereabouts", [_big("activity_id"), _small("device"), country]),
    ):
        _table(table, key_columns, _SIDE_SUMS)
        key = ", ".join(column.name for column in key_columns)
        op.execute(
            f"INSERT INTO {table} ({key}, {', '.join(_SIDE_SUMS)}) SELECT {key}, {counted} FROM visits"  # noqa: S608
            f" WHERE activity_id IS NOT NULL AND label = 1 GROUP BY {key}"
        )
