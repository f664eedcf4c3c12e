"""Looks over the log that owners order: trials of the rules, labels anew, checks of the counters."""

import sqlalchemy as sa
from alembic import op

from campaigns import db

revision = "c61a7d04e2b8"
down_revision = "5d1c0f2a97be"

_BIG = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    op.create_table(
        "inspections",
        sa.Column("id", _BIG, nullable=False),
        sa.Column("kind", sa.String(length=20), nullable=False),
        sa.Column("since", db.UtcDateTime(), nullable=True),
        sa.Column("until", db.UtcDateTime(), nullable=True),
        sa.Column("rules", sa.SmallInteger(), nullable=False),
        sa.Column("total", _BIG, nullable=False),
        sa.Column("done", _BIG, nullable=False),
        sa.Column("place", sa.JSON(), nullable=False),
        sa.Column("found", sa.JSON(), nullable=False),
        sa.Column("error", sa.Text(), nullable=False),
        sa.Column("created_by", _BIG, nullable=True),
        sa.Column("created_at", db.UtcDateTime(), nullable=False),
        sa.Column("finished_at", db.UtcDateTime(), nullable=True),
        sa.ForeignKeyConstraint(
            ["created_by"], ["people.id"], name=op.f("fk_inspections_created_by"), ondelete="SET NULL"
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_inspections")),
    )
    op.create_index(
        "ix_inspections_due",
        "inspections",
        ["id"],
        unique=False,
        sqlite_where=sa.text("finished_at IS NULL"),
        postgresql_where=sa.text("finished_at IS NULL"),
    )
