"""Lean log: marks of human events only, none that follows from another, and on PostgreSQL the least of indexes."""

import sqlalchemy as sa
from alembic import op

from campaigns import db

revision = "e7a40c19b2d8"
down_revision = "8f3e61c07d2a"

_KEY = ("send_id", "activity_id", "kind", "link")


def upgrade() -> None:
    postgres = op.get_bind().dialect.name == "postgresql"
    if postgres:
        _index_parts()
    op.drop_table("first_seen")
    op.create_table(
        "first_seen",
        sa.Column("send_id", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("at", db.UtcDateTime(), nullable=False),
        sa.Column("activity_id", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("kind", sa.SmallInteger(), autoincrement=False, nullable=False),
        sa.Column("link", sa.SmallInteger(), autoincrement=False, nullable=False),
        # On PostgreSQL the key comes when the rows are there.
        *([] if postgres else [sa.PrimaryKeyConstraint(*_KEY, name=op.f("pk_first_seen"))]),
        sqlite_with_rowid=False,
    )
    columns = ", ".join(_KEY)
    # From the log, whose events say it all: a mark of an open might stand for a click.
    op.execute(
        f"INSERT INTO first_seen ({columns}, at) SELECT {columns}, min(at) FROM events"  # noqa: S608
        f" WHERE label = 1 AND send_id IS NOT NULL GROUP BY {columns} ORDER BY {columns}"
    )
    if postgres:
        op.create_primary_key("pk_first_seen", "first_seen", list(_KEY))
    for counters in ("rollups", "day_rollups"):
        op.execute(f"UPDATE {counters} SET uniques = 0 WHERE label <> 1 AND uniques <> 0")  # noqa: S608


def _index_parts() -> None:
    for name in ("ix_events_activity_id_at", "ix_events_settling", "ix_events_settled_id"):
        op.execute(f"DROP INDEX {name}")
    op.execute("CREATE INDEX ix_events_settling_at ON events_settling (at)")
    op.execute(
        "CREATE INDEX ix_events_settled_minute ON events_settled"
        " (activity_id, (date_bin('1 minute', at, timestamptz 'epoch')))"
    )
    op.execute(
        "CREATE INDEX ix_events_settled_place ON events_settled USING brin (id int8_minmax_multi_ops, at)"
        " WITH (pages_per_range = 32, autosummarize = on)"
    )
