"""Web visits: sessions, page views, their dictionaries and counts."""

import sqlalchemy as sa
from alembic import op

from campaigns import db

revision = "cba26f77727b"
down_revision = "84ef742b1484"


def upgrade() -> None:
    op.create_table(
        "day_salts",
        sa.Column("day", sa.Date(), nullable=False),
        sa.Column("salt", sa.LargeBinary(length=32), nullable=False),
        sa.PrimaryKeyConstraint("day", name=op.f("pk_day_salts")),
    )
    op.create_table(
        "forms_seen",
        sa.Column("page", sa.String(length=32), nullable=False),
        sa.Column("visit_id", sa.BigInteger(), nullable=False),
        sa.Column("at", db.UtcDateTime(), nullable=False),
        sa.PrimaryKeyConstraint("page", name=op.f("pk_forms_seen")),
    )
    with op.batch_alter_table("forms_seen", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("ix_forms_seen_at"), ["at"], unique=False)

    op.create_table(
        "page_views",
        sa.Column("visit_id", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("page", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("at", db.UtcDateTime(), nullable=False),
        sa.Column("page_id", sa.Integer(), nullable=False),
        sa.Column("active_seconds", sa.Integer(), nullable=False),
        sa.Column("scroll", sa.SmallInteger(), nullable=False),
        sa.PrimaryKeyConstraint("visit_id", "page", name=op.f("pk_page_views")),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "sites_seen",
        sa.Column("host", sa.String(length=100), nullable=False),
        sa.Column("last_at", db.UtcDateTime(), nullable=False),
        sa.Column("records", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("host", name=op.f("pk_sites_seen")),
    )
    op.create_table(
        "visit_rollups",
        sa.Column(
            "activity_id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), autoincrement=False, nullable=False
        ),
        sa.Column("bucket", db.UtcDateTime(), nullable=False),
        sa.Column("channel_group", sa.SmallInteger(), autoincrement=False, nullable=False),
        sa.Column("label", sa.SmallInteger(), autoincrement=False, nullable=False),
        sa.Column("visits", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column("visitors", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column("campaign_visitors", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column("engaged", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column("active_seconds", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column("pages", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column("new", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column("aggregate", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.PrimaryKeyConstraint("activity_id", "bucket", "channel_group", "label", name=op.f("pk_visit_rollups")),
        sqlite_with_rowid=False,
    )
    with op.batch_alter_table("visit_rollups", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("ix_visit_rollups_bucket"), ["bucket"], unique=False)

    op.create_table(
        "web_arrivals",
        sa.Column("id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column("digest", sa.LargeBinary(length=16), nullable=False),
        sa.Column("source", sa.String(length=100), nullable=False),
        sa.Column("medium", sa.String(length=100), nullable=False),
        sa.Column("campaign", sa.String(length=100), nullable=False),
        sa.Column("term", sa.String(length=100), nullable=False),
        sa.Column("content", sa.String(length=100), nullable=False),
        sa.Column("utm_id", sa.String(length=100), nullable=False),
        sa.Column("referrer", sa.String(length=100), nullable=False),
        sa.Column("network", sa.String(length=100), nullable=False),
        sa.Column("channel_group", sa.SmallInteger(), nullable=False),
        sa.Column("rules", sa.SmallInteger(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_web_arrivals")),
        sa.UniqueConstraint("digest", name=op.f("uq_web_arrivals_digest")),
    )
    op.create_table(
        "web_pages",
        sa.Column("id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column("digest", sa.LargeBinary(length=16), nullable=False),
        sa.Column("host", sa.String(length=100), nullable=False),
        sa.Column("path", sa.String(length=300), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_web_pages")),
        sa.UniqueConstraint("digest", name=op.f("uq_web_pages_digest")),
    )
    op.create_table(
        "visits",
        sa.Column("id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), autoincrement=False, nullable=False),
        sa.Column("started_at", db.UtcDateTime(), nullable=False),
        sa.Column("last_at", db.UtcDateTime(), nullable=False),
        sa.Column("visitor", sa.BigInteger(), nullable=False),
        sa.Column("send_id", sa.BigInteger(), nullable=True),
        sa.Column("contact_id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=True),
        sa.Column("activity_id", sa.Integer(), nullable=True),
        sa.Column("arrival_id", sa.Integer(), nullable=False),
        sa.Column("entry_id", sa.Integer(), nullable=False),
        sa.Column("exit_id", sa.Integer(), nullable=False),
        sa.Column("pages", sa.Integer(), nullable=False),
        sa.Column("active_seconds", sa.Integer(), nullable=False),
        sa.Column("scroll", sa.SmallInteger(), nullable=False),
        sa.Column("known", sa.SmallInteger(), nullable=False),
        sa.Column("label", sa.SmallInteger(), nullable=False),
        sa.Column("device", sa.SmallInteger(), nullable=False),
        sa.Column("engaged", sa.Boolean(), nullable=False),
        sa.Column("new", sa.Boolean(), nullable=False),
        sa.Column("first", sa.Boolean(), nullable=False),
        sa.Column("first_in_campaign", sa.Boolean(), nullable=False),
        sa.Column("browser", sa.String(length=20), nullable=False),
        sa.Column("country", sa.String(length=2), nullable=False),
        sa.ForeignKeyConstraint(
            ["contact_id"], ["contacts.id"], name=op.f("fk_visits_contact_id"), ondelete="SET NULL"
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_visits")),
    )
    with op.batch_alter_table("visits", schema=None) as batch_op:
        batch_op.create_index(
            batch_op.f("ix_visits_activity_id_started_at"), ["activity_id", "started_at"], unique=False
        )
        batch_op.create_index(
            "ix_visits_contact",
            ["contact_id", "started_at"],
            unique=False,
            sqlite_where=sa.text("contact_id IS NOT NULL"),
            postgresql_where=sa.text("contact_id IS NOT NULL"),
        )
        batch_op.create_index(
            "ix_visits_send",
            ["send_id"],
            unique=False,
            sqlite_where=sa.text("send_id IS NOT NULL"),
            postgresql_where=sa.text("send_id IS NOT NULL"),
        )
        batch_op.create_index(batch_op.f("ix_visits_visitor_last_at"), ["visitor", "last_at"], unique=False)

    op.create_table(
        "pages_reached",
        sa.Column("visit_id", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("goal_id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column("page_id", sa.Integer(), nullable=False),
        sa.Column("at", db.UtcDateTime(), nullable=False),
        sa.ForeignKeyConstraint(["goal_id"], ["goals.id"], name=op.f("fk_pages_reached_goal_id"), ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("visit_id", "goal_id", name=op.f("pk_pages_reached")),
    )
