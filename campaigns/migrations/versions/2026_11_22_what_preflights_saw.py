"""What a preflight looked at, part by part, so that it can say what has changed since."""

import sqlalchemy as sa
from alembic import op

revision = "aa380f9d478d"
down_revision = "6db5ca9fe924"


def upgrade() -> None:
    with op.batch_alter_table("preflights", schema=None) as batch_op:
        batch_op.add_column(sa.Column("seen", sa.JSON(), nullable=True))
    op.execute("UPDATE preflights SET seen = '{}'")
    with op.batch_alter_table("preflights", schema=None) as batch_op:
        batch_op.alter_column("seen", existing_type=sa.JSON(), nullable=False)
