"""Totals of days beside the counters of 15 minutes; whoever counts first fills them from those."""

import sqlalchemy as sa
from alembic import op

from campaigns import db

revision = "5d1c0f2a97be"
down_revision = "d2526595264a"

_BIG = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
_SUMS = ("visits", "visitors", "campaign_visitors", "engaged", "active_seconds", "pages", "new", "aggregate")


def _small(name: str) -> sa.Column[int]:
    return sa.Column(name, sa.SmallInteger(), autoincrement=False, nullable=False)


def upgrade() -> None:
    op.create_table(
        "day_zones",
        sa.Column("id", _BIG, nullable=False),
        sa.Column("zone", sa.String(length=64), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_day_zones")),
    )
    op.create_table(
        "day_rollups",
        sa.Column("activity_id", _BIG, autoincrement=False, nullable=False),
        _small("link"),
        sa.Column("day", db.UtcDateTime(), nullable=False),
        _small("kind"),
        _small("label"),
        sa.Column("events", _BIG, nullable=False),
        sa.Column("uniques", _BIG, nullable=False),
        sa.PrimaryKeyConstraint("activity_id", "link", "day", "kind", "label", name=op.f("pk_day_rollups")),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "day_visits",
        sa.Column("activity_id", _BIG, autoincrement=False, nullable=False),
        sa.Column("day", db.UtcDateTime(), nullable=False),
        _small("channel_group"),
        _small("label"),
        *(sa.Column(name, _BIG, nullable=False) for name in _SUMS),
        sa.PrimaryKeyConstraint("activity_id", "day", "channel_group", "label", name=op.f("pk_day_visits")),
        sqlite_with_rowid=False,
    )
    with op.batch_alter_table("day_visits", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("ix_day_visits_day"), ["day"], unique=False)
