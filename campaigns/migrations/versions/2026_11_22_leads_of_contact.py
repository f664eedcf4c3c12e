"""Find a contact's leads, closed ones too, without reading all leads."""

from alembic import op

revision = "8f3e61c07d2a"
down_revision = "c61a7d04e2b8"


def upgrade() -> None:
    with op.batch_alter_table("leads", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("ix_leads_contact_id_created_at"), ["contact_id", "created_at"], unique=False)
