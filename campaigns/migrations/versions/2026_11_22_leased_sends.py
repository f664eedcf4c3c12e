"""Only sends under lease in the index of leases.

Nearly all sends are under none; an index that holds them too is written with each row and each change of it.
"""

import sqlalchemy as sa
from alembic import op

revision = "d7e51f0a93c6"
down_revision = "c4a9d2e81b57"


def upgrade() -> None:
    leased = sa.text("lease_until IS NOT NULL")
    op.create_index("ix_sends_leased", "sends", ["lease_until"], sqlite_where=leased, postgresql_where=leased)
    op.drop_index("ix_sends_lease_until", "sends")
