"""Goals that count from a day; the others from their creation, as before."""

import sqlalchemy as sa
from alembic import op

from campaigns import db

revision = "9e651e287bea"
down_revision = "d7e51f0a93c6"


def upgrade() -> None:
    with op.batch_alter_table("goals") as goals:
        goals.add_column(sa.Column("since", db.UtcDateTime(), nullable=True))
    op.execute("UPDATE goals SET since = created_at")
    with op.batch_alter_table("goals") as goals:
        goals.alter_column("since", existing_type=db.UtcDateTime(), nullable=False)
