"""Goals, reported events, exchange rates, and the touches before each conversion."""

import sqlalchemy as sa
from alembic import op

from campaigns import db

revision = "5f68db6c1af5"
down_revision = "03677a2d9620"


def upgrade() -> None:
    op.create_table(
        "exchange_rates",
        sa.Column("currency", sa.String(length=3), nullable=False),
        sa.Column("valid_from", sa.Date(), nullable=False),
        sa.Column("rate", db.DecimalRate(), nullable=False),
        sa.PrimaryKeyConstraint("currency", "valid_from", name=op.f("pk_exchange_rates")),
    )
    op.create_table(
        "goals",
        sa.Column("id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column("key", sa.String(length=40), nullable=False),
        sa.Column("name", sa.String(length=200), nullable=False),
        sa.Column("kind", sa.String(length=20), nullable=False),
        sa.Column("match", sa.String(length=300), nullable=False),
        sa.Column("campaign_id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=True),
        sa.Column("once", sa.Boolean(), nullable=False),
        sa.Column("value", db.MoneyType(), nullable=True),
        sa.Column("active", sa.Boolean(), nullable=False),
        sa.Column("created_at", db.UtcDateTime(), nullable=False),
        sa.ForeignKeyConstraint(["campaign_id"], ["campaigns.id"], name=op.f("fk_goals_campaign_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_goals")),
        sa.UniqueConstraint("key", name=op.f("uq_goals_key")),
    )
    with op.batch_alter_table("goals", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("ix_goals_campaign_id"), ["campaign_id"], unique=False)

    op.create_table(
        "custom_events",
        sa.Column("id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column("external_id", sa.String(length=80), nullable=False),
        sa.Column("name", sa.String(length=80), nullable=False),
        sa.Column("at", db.UtcDateTime(), nullable=False),
        sa.Column("contact_id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=True),
        sa.Column("visit_id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=True),
        sa.Column("activity_id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=True),
        sa.Column("amount", db.MoneyType(), nullable=True),
        sa.Column("currency", sa.String(length=3), nullable=False),
        sa.Column("detail", sa.JSON(), nullable=False),
        sa.Column("noticed", sa.Boolean(), nullable=False),
        sa.ForeignKeyConstraint(["activity_id"], ["activities.id"], name=op.f("fk_custom_events_activity_id")),
        sa.ForeignKeyConstraint(
            ["contact_id"], ["contacts.id"], name=op.f("fk_custom_events_contact_id"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_custom_events")),
        sa.UniqueConstraint("external_id", name=op.f("uq_custom_events_external_id")),
    )
    with op.batch_alter_table("custom_events", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("ix_custom_events_contact_id_at"), ["contact_id", "at"], unique=False)
        batch_op.create_index(
            "ix_custom_events_due",
            ["id"],
            unique=False,
            sqlite_where=sa.text("noticed = 0"),
            postgresql_where=sa.text("NOT noticed"),
        )
        batch_op.create_index(batch_op.f("ix_custom_events_visit_id"), ["visit_id"], unique=False)

    op.create_table(
        "conversion_touches",
        sa.Column("conversion_id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column("position", sa.SmallInteger(), autoincrement=False, nullable=False),
        sa.Column("activity_id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column("kind", sa.String(length=10), nullable=False),
        sa.Column("source_id", sa.BigInteger(), nullable=False),
        sa.Column("at", db.UtcDateTime(), nullable=False),
        sa.Column("settling", sa.Boolean(), nullable=False),
        sa.ForeignKeyConstraint(["activity_id"], ["activities.id"], name=op.f("fk_conversion_touches_activity_id")),
        sa.ForeignKeyConstraint(
            ["conversion_id"], ["conversions.id"], name=op.f("fk_conversion_touches_conversion_id"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("conversion_id", "position", name=op.f("pk_conversion_touches")),
    )
    with op.batch_alter_table("conversion_touches", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("ix_conversion_touches_activity_id"), ["activity_id"], unique=False)
        batch_op.create_index(
            "ix_conversion_touches_settling",
            ["source_id"],
            unique=False,
            sqlite_where=sa.text("settling = 1"),
            postgresql_where=sa.text("settling"),
        )

    with op.batch_alter_table("conversions", schema=None) as batch_op:
        batch_op.add_column(sa.Column("visit_id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=True))
        batch_op.add_column(sa.Column("amount", db.MoneyType(), nullable=True))
        batch_op.add_column(sa.Column("currency", sa.String(length=3), server_default=sa.text("''"), nullable=False))
        batch_op.alter_column(
            "external_id", existing_type=sa.VARCHAR(length=80), type_=sa.String(length=140), existing_nullable=False
        )
        batch_op.alter_column("campaign_id", existing_type=sa.INTEGER(), nullable=True)
        batch_op.alter_column("activity_id", existing_type=sa.INTEGER(), nullable=True)
        batch_op.alter_column("contact_id", existing_type=sa.INTEGER(), nullable=True)
        batch_op.create_index(batch_op.f("ix_conversions_goal_contact_id"), ["goal", "contact_id"], unique=False)
        batch_op.create_index(
            "ix_conversions_unconverted",
            ["currency"],
            unique=False,
            postgresql_where=sa.text("value IS NULL AND amount IS NOT NULL"),
            sqlite_where=sa.text("value IS NULL AND amount IS NOT NULL"),
        )
        batch_op.create_index(batch_op.f("ix_conversions_visit_id"), ["visit_id"], unique=False)

    # A click whose label isn't final must still be found when it gets one.
    op.execute(
        "INSERT INTO conversion_touches (conversion_id, position, activity_id, kind, source_id, at, settling)"
        " SELECT c.conversion_id, min(CASE WHEN c.model = 'first_touch' THEN 0 ELSE 1 END), min(c.activity_id), 'click',"
        " c.settling_event_id, min(v.at), true FROM credits c JOIN conversions v ON v.id = c.conversion_id"
        " WHERE c.settling_event_id IS NOT NULL GROUP BY c.conversion_id, c.settling_event_id"
    )
    with op.batch_alter_table("credits", schema=None) as batch_op:
        batch_op.drop_index(batch_op.f("ix_credits_settling_event_id"))
        batch_op.drop_column("settling_event_id")

    with op.batch_alter_table("leads", schema=None) as batch_op:
        batch_op.add_column(sa.Column("stage_at", db.UtcDateTime(), nullable=True))
        batch_op.add_column(sa.Column("stage_noticed", sa.Boolean(), server_default=sa.true(), nullable=False))
        batch_op.create_index(
            "ix_leads_stage_due",
            ["id"],
            unique=False,
            sqlite_where=sa.text("stage_noticed = 0"),
            postgresql_where=sa.text("NOT stage_noticed"),
        )

    with op.batch_alter_table("submissions", schema=None) as batch_op:
        batch_op.add_column(sa.Column("noticed", sa.Boolean(), server_default=sa.true(), nullable=False))
        batch_op.create_index(
            "ix_submissions_due",
            ["id"],
            unique=False,
            sqlite_where=sa.text("noticed = 0"),
            postgresql_where=sa.text("NOT noticed"),
        )
