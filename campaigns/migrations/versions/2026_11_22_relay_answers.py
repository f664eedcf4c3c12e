"""Answers of relays, counted as they come."""

import sqlalchemy as sa
from alembic import op

from campaigns import db

revision = "9662980b5796"
down_revision = "b51e07c3a9d4"


def upgrade() -> None:
    op.create_table(
        "relay_answers",
        sa.Column(
            "activity_id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), autoincrement=False, nullable=False
        ),
        sa.Column("relay", sa.String(length=300), nullable=False),
        sa.Column("fate", sa.String(length=20), nullable=False),
        sa.Column("words", sa.String(length=200), nullable=False),
        sa.Column("part", sa.SmallInteger(), autoincrement=False, nullable=False),
        sa.Column("number", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column("example", sa.String(length=500), nullable=False),
        sa.Column("first_at", db.UtcDateTime(), nullable=False),
        sa.Column("last_at", db.UtcDateTime(), nullable=False),
        sa.PrimaryKeyConstraint("activity_id", "relay", "fate", "words", "part", name=op.f("pk_relay_answers")),
        sqlite_with_rowid=False,
    )
