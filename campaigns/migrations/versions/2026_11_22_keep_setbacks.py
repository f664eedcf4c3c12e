"""What the clock failed at."""

import sqlalchemy as sa
from alembic import op

from campaigns import db

revision = "733e08fe1cdd"
down_revision = "c24c90676ac1"


def upgrade() -> None:
    op.create_table(
        "setbacks",
        sa.Column("chore", sa.String(length=20), nullable=False),
        sa.Column("subject", sa.String(length=80), nullable=False),
        sa.Column("error", sa.String(length=300), nullable=False),
        sa.Column("failures", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column("failed_at", db.UtcDateTime(), nullable=False),
        sa.Column("retry_at", db.UtcDateTime(), nullable=False),
        sa.PrimaryKeyConstraint("chore", "subject", name=op.f("pk_setbacks")),
    )
