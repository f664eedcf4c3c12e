"""The level in the index of consent: what somebody allows is asked for each mail, and answered without the row."""

from alembic import op

revision = "c07b9d35e1a4"
down_revision = "a81f4d06c3e9"

_KEY = ["contact_id", "purpose", "at", "id"]


def upgrade() -> None:
    op.create_index("ix_consent_contact_id_purpose_at_id_level", "consent", [*_KEY, "level"])
    op.drop_index("ix_consent_contact_id_purpose_at_id", "consent")
