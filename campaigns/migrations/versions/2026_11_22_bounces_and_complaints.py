"""What comes back: bounces and complaints, the ways by which they come, and where to."""

import sqlalchemy as sa
from alembic import op

from campaigns import db

revision = "b44f2eb498d6"
down_revision = "3e31f94cc1f7"

_NEVER = "timestamptz 'epoch'"


def _marks(row: str) -> str:
    """With what 2026_11_22_count_sends counted, and beside it 32, 64 and 128."""
    tests = (
        f"{row}trackable",
        f"{row}first_opened_at IS NOT NULL OR {row}clicked_at IS NOT NULL",
        f"{row}clicked_at IS NOT NULL",
        f"{row}unsubscribed_at IS NOT NULL",
        f"{row}sent_at IS NOT NULL",
        f"{row}state = 'bounced' AND {row}reason = 'hard'",
        f"{row}state = 'bounced' AND {row}reason = 'policy'",
        f"{row}complained_at IS NOT NULL",
    )
    return " + ".join(f"CASE WHEN {test} THEN {1 << bit} ELSE 0 END" for bit, test in enumerate(tests))


def _one(row: str, number: int) -> str:
    at = f"ifnull(ifnull({row}.sent_at, {row}.bounced_at), 0)"
    return (
        "INSERT INTO send_counts (activity_id, bucket, state, marks, part, number)"
        f" SELECT {row}.activity_id, {at} - {at} % 900000000, {row}.state, {_marks(row + '.')}, 0, {number}"
        f" WHERE {row}.occasion = ''"
        " ON CONFLICT (activity_id, bucket, state, marks, part) DO UPDATE SET number = number + excluded.number;"
    )


def _sqlite() -> list[str]:
    columns = (
        "state",
        "sent_at",
        "bounced_at",
        "trackable",
        "first_opened_at",
        "clicked_at",
        "unsubscribed_at",
        "complained_at",
        "reason",
        "occasion",
    )
    changed = " OR ".join(f"OLD.{column} IS NOT NEW.{column}" for column in columns)
    return [
        *(f"DROP TRIGGER IF EXISTS sends_{name}" for name in ("inserted", "updated", "deleted")),
        f"CREATE TRIGGER sends_inserted AFTER INSERT ON sends BEGIN {_one('NEW', 1)} END",
        f"CREATE TRIGGER sends_updated AFTER UPDATE OF {', '.join(columns)} ON sends WHEN {changed}"
        f" BEGIN {_one('OLD', -1)} {_one('NEW', 1)} END",
        f"CREATE TRIGGER sends_deleted AFTER DELETE ON sends BEGIN {_one('OLD', -1)} END",
    ]


def _all(source: str) -> str:
    bucket = f"date_bin('15 minutes', coalesce(sent_at, bounced_at, {_NEVER}), {_NEVER})"
    return (
        "INSERT INTO send_counts AS kept (activity_id, bucket, state, marks, part, number)"  # noqa: S608
        f" SELECT activity_id, {bucket}, state, {_marks('')}, pg_backend_pid() & 255, sum(change)"
        f" FROM ({source}) AS changed WHERE occasion = '' GROUP BY 1, 2, 3, 4 HAVING sum(change) <> 0"
        " ORDER BY 1, 2, 3, 4"
        " ON CONFLICT (activity_id, bucket, state, marks, part) DO UPDATE SET number = kept.number + excluded.number;"
    )


def _postgres() -> list[str]:
    after, before = "SELECT *, 1 AS change FROM after", "SELECT *, -1 AS change FROM before"
    return [
        "CREATE OR REPLACE FUNCTION count_sends() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN"
        f" IF TG_OP = 'INSERT' THEN {_all(after)}"
        f" ELSIF TG_OP = 'UPDATE' THEN {_all(before + ' UNION ALL ' + after)}"
        f" ELSE {_all(before)} END IF; RETURN NULL; END $$"
    ]


def upgrade() -> None:
    op.create_table(
        "arrivals",
        sa.Column("id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column("way", sa.String(length=20), nullable=False),
        sa.Column("digest", sa.String(length=64), nullable=False),
        sa.Column("raw", sa.LargeBinary(), nullable=True),
        sa.Column("finding", sa.String(length=20), nullable=True),
        sa.Column("said", sa.String(length=500), nullable=False),
        sa.Column("recipient", sa.String(length=254), nullable=False),
        sa.Column("received_at", db.UtcDateTime(), nullable=False),
        sa.Column("due_at", db.UtcDateTime(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_arrivals")),
        sa.UniqueConstraint("digest", name=op.f("uq_arrivals_digest")),
    )
    with op.batch_alter_table("arrivals", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("ix_arrivals_finding_due_at"), ["finding", "due_at"], unique=False)
        batch_op.create_index(batch_op.f("ix_arrivals_received_at"), ["received_at"], unique=False)

    op.create_table(
        "mailboxes",
        sa.Column("id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column("host", sa.String(length=253), nullable=False),
        sa.Column("port", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column("tls", sa.String(length=20), nullable=False),
        sa.Column("user", sa.String(length=200), nullable=False),
        sa.Column("secret", sa.String(length=1000), nullable=False),
        sa.Column("folder", sa.String(length=200), nullable=False),
        sa.Column("remove", sa.Boolean(), nullable=False),
        sa.Column("active", sa.Boolean(), nullable=False),
        sa.Column("uid_validity", sa.BigInteger(), nullable=False),
        sa.Column("last_uid", sa.BigInteger(), nullable=False),
        sa.Column("error", sa.String(length=500), nullable=False),
        sa.Column("looked_at", db.UtcDateTime(), nullable=True),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_mailboxes")),
    )
    op.create_table(
        "tallies",
        sa.Column("way", sa.String(length=20), nullable=False),
        sa.Column("finding", sa.String(length=20), nullable=False),
        sa.Column("count", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column("last_at", db.UtcDateTime(), nullable=False),
        sa.PrimaryKeyConstraint("way", "finding", name=op.f("pk_tallies")),
    )
    op.create_table(
        "webhooks",
        sa.Column("way", sa.String(length=20), nullable=False),
        sa.Column("secret", sa.Text(), nullable=False),
        sa.Column("topics", sa.JSON(), nullable=False),
        sa.Column("active", sa.Boolean(), nullable=False),
        sa.Column("changed_at", db.UtcDateTime(), nullable=False),
        sa.PrimaryKeyConstraint("way", name=op.f("pk_webhooks")),
    )
    op.create_table(
        "feedback",
        sa.Column("id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column("send_id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column("activity_id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column("address", sa.String(length=254), nullable=False),
        sa.Column("finding", sa.String(length=20), nullable=False),
        sa.Column("status", sa.String(length=20), nullable=False),
        sa.Column("said", sa.String(length=500), nullable=False),
        sa.Column("way", sa.String(length=20), nullable=False),
        sa.Column("key", sa.String(length=120), nullable=False),
        sa.Column("at", db.UtcDateTime(), nullable=False),
        sa.Column("spent", sa.Boolean(), nullable=False),
        sa.ForeignKeyConstraint(["send_id"], ["sends.id"], name=op.f("fk_feedback_send_id"), ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_feedback")),
        sa.UniqueConstraint("send_id", "key", name=op.f("uq_feedback_send_id_key")),
    )
    with op.batch_alter_table("feedback", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("ix_feedback_activity_id_finding"), ["activity_id", "finding"], unique=False)
        batch_op.create_index(batch_op.f("ix_feedback_address_finding_at"), ["address", "finding", "at"], unique=False)

    with op.batch_alter_table("sends", schema=None) as batch_op:
        batch_op.add_column(sa.Column("complained_at", db.UtcDateTime(), nullable=True))

    with op.batch_alter_table("organisation", schema=None) as batch_op:
        batch_op.add_column(sa.Column("bounce_domain", sa.String(length=253), nullable=True))

    # Before the rows change, so that the counters move along.
    for statement in _postgres() if op.get_bind().dialect.name == "postgresql" else _sqlite():
        op.get_bind().exec_driver_sql(statement)

    # Bounces from before say by their reply of which kind they were.
    op.execute("UPDATE sends SET reason = 'soft' WHERE state = 'bounced'")
    for code in ("5.1.1", "5.1.2", "5.1.6", "5.1.10"):
        hard = sa.text("UPDATE sends SET reason = 'hard' WHERE state = 'bounced' AND reply LIKE :like")
        op.execute(hard.bindparams(like=f"% {code} %"))
