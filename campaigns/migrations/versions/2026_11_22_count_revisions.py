"""Revisions of what people edit, and what their forms have made."""

import sqlalchemy as sa
from alembic import op

from campaigns import db

revision = "03677a2d9620"
down_revision = "08a5dec3f9a6"


def upgrade() -> None:
    op.create_table(
        "made",
        sa.Column("key", sa.String(length=80), nullable=False),
        sa.Column("url", sa.String(length=300), nullable=False),
        sa.Column("at", db.UtcDateTime(), nullable=False),
        sa.PrimaryKeyConstraint("key", name=op.f("pk_made")),
    )
    with op.batch_alter_table("made", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("ix_made_at"), ["at"], unique=False)

    with op.batch_alter_table("activities", schema=None) as batch_op:
        batch_op.add_column(
            sa.Column(
                "revision", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), server_default="1", nullable=False
            )
        )

    with op.batch_alter_table("campaigns", schema=None) as batch_op:
        batch_op.add_column(
            sa.Column(
                "revision", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), server_default="1", nullable=False
            )
        )

    with op.batch_alter_table("forms", schema=None) as batch_op:
        batch_op.add_column(
            sa.Column(
                "revision", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), server_default="1", nullable=False
            )
        )

    with op.batch_alter_table("organisation", schema=None) as batch_op:
        batch_op.add_column(
            sa.Column(
                "revision", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), server_default="1", nullable=False
            )
        )
