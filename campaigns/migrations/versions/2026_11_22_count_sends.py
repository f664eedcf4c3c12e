"""count sends: by triggers from now on, and once what is there."""

import sqlalchemy as sa
from alembic import op

from campaigns import db

revision = "3f0e852261e4"
down_revision = "cba26f77727b"

_MARKS = (
    "CASE WHEN trackable THEN 1 ELSE 0 END + CASE WHEN first_opened_at IS NOT NULL OR clicked_at IS NOT NULL THEN "
    "2 ELSE 0 END + CASE WHEN clicked_at IS NOT NULL THEN 4 ELSE 0 END + CASE WHEN unsubscribed_at IS NOT NULL "
    "THEN 8 ELSE 0 END + CASE WHEN sent_at IS NOT NULL THEN 16 ELSE 0 END"
)
_SQLITE_BUCKET = "ifnull(ifnull(sent_at, bounced_at), 0) - ifnull(ifnull(sent_at, bounced_at), 0) % 900000000"
_POSTGRES_BUCKET = "date_bin('15 minutes', coalesce(sent_at, bounced_at, timestamptz 'epoch'), timestamptz 'epoch')"
_SQLITE = (
    (
        "CREATE TRIGGER IF NOT EXISTS sends_inserted AFTER INSERT ON sends BEGIN INSERT INTO send_counts "
        "(activity_id, bucket, state, marks, part, number) SELECT NEW.activity_id, ifnull(ifnull(NEW.sent_at, "
        "NEW.bounced_at), 0) - ifnull(ifnull(NEW.sent_at, NEW.bounced_at), 0) % 900000000, NEW.state, CASE WHEN "
        "NEW.trackable THEN 1 ELSE 0 END + CASE WHEN NEW.first_opened_at IS NOT NULL OR NEW.clicked_at IS NOT NULL "
        "THEN 2 ELSE 0 END + CASE WHEN NEW.clicked_at IS NOT NULL THEN 4 ELSE 0 END + CASE WHEN NEW.unsubscribed_at "
        "IS NOT NULL THEN 8 ELSE 0 END + CASE WHEN NEW.sent_at IS NOT NULL THEN 16 ELSE 0 END, 0, 1 WHERE "
        "NEW.occasion = '' ON CONFLICT (activity_id, bucket, state, marks, part) DO UPDATE SET number = number + "
        "excluded.number; END"
    ),
    (
        "CREATE TRIGGER IF NOT EXISTS sends_updated AFTER UPDATE OF state, sent_at, bounced_at, trackable, "
        "first_opened_at, clicked_at, unsubscribed_at, occasion ON sends WHEN OLD.state IS NOT NEW.state OR "
        "OLD.sent_at IS NOT NEW.sent_at OR OLD.bounced_at IS NOT NEW.bounced_at OR OLD.trackable IS NOT NEW.trackable "
        "OR OLD.first_opened_at IS NOT NEW.first_opened_at OR OLD.clicked_at IS NOT NEW.clicked_at OR "
        "OLD.unsubscribed_at IS NOT NEW.unsubscribed_at OR OLD.occasion IS NOT NEW.occasion BEGIN INSERT INTO "
        "send_counts (activity_id, bucket, state, marks, part, number) SELECT OLD.activity_id, "
        "ifnull(ifnull(OLD.sent_at, OLD.bounced_at), 0) - ifnull(ifnull(OLD.sent_at, OLD.bounced_at), 0) % 900000000, "
        "OLD.state, CASE WHEN OLD.trackable THEN 1 ELSE 0 END + CASE WHEN OLD.first_opened_at IS NOT NULL OR "
        "OLD.clicked_at IS NOT NULL THEN 2 ELSE 0 END + CASE WHEN OLD.clicked_at IS NOT NULL THEN 4 ELSE 0 END + CASE "
        "WHEN OLD.unsubscribed_at IS NOT NULL THEN 8 ELSE 0 END + CASE WHEN OLD.sent_at IS NOT NULL THEN 16 ELSE 0 "
        "END, 0, -1 WHERE OLD.occasion = '' ON CONFLICT (activity_id, bucket, state, marks, part) DO UPDATE SET "
        "number = number + excluded.number; INSERT INTO send_counts (activity_id, bucket, state, marks, part, number) "
        "SELECT NEW.activity_id, ifnull(ifnull(NEW.sent_at, NEW.bounced_at), 0) - ifnull(ifnull(NEW.sent_at, "
        "NEW.bounced_at), 0) % 900000000, NEW.state, CASE WHEN NEW.trackable THEN 1 ELSE 0 END + CASE WHEN "
        "NEW.first_opened_at IS NOT NULL OR NEW.clicked_at IS NOT NULL THEN 2 ELSE 0 END + CASE WHEN NEW.clicked_at "
        "IS NOT NULL THEN 4 ELSE 0 END + CASE WHEN NEW.unsubscribed_at IS NOT NULL THEN 8 ELSE 0 END + CASE WHEN "
        "NEW.sent_at IS NOT NULL THEN 16 ELSE 0 END, 0, 1 WHERE NEW.occasion = '' ON CONFLICT (activity_id, bucket, "
        "state, marks, part) DO UPDATE SET number = number + excluded.number; END"
    ),
    (
        "CREATE TRIGGER IF NOT EXISTS sends_deleted AFTER DELETE ON sends BEGIN INSERT INTO send_counts (activity_id, "
        "bucket, state, marks, part, number) SELECT OLD.activity_id, ifnull(ifnull(OLD.sent_at, OLD.bounced_at), 0) - "
        "ifnull(ifnull(OLD.sent_at, OLD.bounced_at), 0) % 900000000, OLD.state, CASE WHEN OLD.trackable THEN 1 ELSE 0 "
        "END + CASE WHEN OLD.first_opened_at IS NOT NULL OR OLD.clicked_at IS NOT NULL THEN 2 ELSE 0 END + CASE WHEN "
        "OLD.clicked_at IS NOT NULL THEN 4 ELSE 0 END + CASE WHEN OLD.unsubscribed_at IS NOT NULL THEN 8 ELSE 0 END + "
        "CASE WHEN OLD.sent_at IS NOT NULL THEN 16 ELSE 0 END, 0, -1 WHERE OLD.occasion = '' ON CONFLICT "
        "(activity_id, bucket, state, marks, part) DO UPDATE SET number = number + excluded.number; END"
    ),
)
_POSTGRES = (
    (
        "CREATE OR REPLACE FUNCTION count_sends() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN IF TG_OP = 'INSERT' "
        "THEN INSERT INTO send_counts AS kept (activity_id, bucket, state, marks, part, number) SELECT activity_id, "
        "date_bin('15 minutes', coalesce(sent_at, bounced_at, timestamptz 'epoch'), timestamptz 'epoch'), state, CASE "
        "WHEN trackable THEN 1 ELSE 0 END + CASE WHEN first_opened_at IS NOT NULL OR clicked_at IS NOT NULL THEN 2 "
        "ELSE 0 END + CASE WHEN clicked_at IS NOT NULL THEN 4 ELSE 0 END + CASE WHEN unsubscribed_at IS NOT NULL THEN "
        "8 ELSE 0 END + CASE WHEN sent_at IS NOT NULL THEN 16 ELSE 0 END, pg_backend_pid() & 255, sum(change) FROM "
        "(SELECT *, 1 AS change FROM after) AS changed WHERE occasion = '' GROUP BY 1, 2, 3, 4 HAVING sum(change) <> "
        "0 ORDER BY 1, 2, 3, 4 ON CONFLICT (activity_id, bucket, state, marks, part) DO UPDATE SET number = "
        "kept.number + excluded.number; ELSIF TG_OP = 'UPDATE' THEN INSERT INTO send_counts AS kept (activity_id, "
        "bucket, state, marks, part, number) SELECT activity_id, date_bin('15 minutes', coalesce(sent_at, bounced_at, "
        "timestamptz 'epoch'), timestamptz 'epoch'), state, CASE WHEN trackable THEN 1 ELSE 0 END + CASE WHEN "
        "first_opened_at IS NOT NULL OR clicked_at IS NOT NULL THEN 2 ELSE 0 END + CASE WHEN clicked_at IS NOT NULL "
        "THEN 4 ELSE 0 END + CASE WHEN unsubscribed_at IS NOT NULL THEN 8 ELSE 0 END + CASE WHEN sent_at IS NOT NULL "
        "THEN 16 ELSE 0 END, pg_backend_pid() & 255, sum(change) FROM (SELECT *, -1 AS change FROM before UNION ALL "
        "SELECT *, 1 AS change FROM after) AS changed WHERE occasion = '' GROUP BY 1, 2, 3, 4 HAVING sum(change) <> 0 "
        "ORDER BY 1, 2, 3, 4 ON CONFLICT (activity_id, bucket, state, marks, part) DO UPDATE SET number = kept.number "
        "+ excluded.number; ELSE INSERT INTO send_counts AS kept (activity_id, bucket, state, marks, part, number) "
        "SELECT activity_id, date_bin('15 minutes', coalesce(sent_at, bounced_at, timestamptz 'epoch'), timestamptz "
        "'epoch'), state, CASE WHEN trackable THEN 1 ELSE 0 END + CASE WHEN first_opened_at IS NOT NULL OR clicked_at "
        "IS NOT NULL THEN 2 ELSE 0 END + CASE WHEN clicked_at IS NOT NULL THEN 4 ELSE 0 END + CASE WHEN "
        "unsubscribed_at IS NOT NULL THEN 8 ELSE 0 END + CASE WHEN sent_at IS NOT NULL THEN 16 ELSE 0 END, "
        "pg_backend_pid() & 255, sum(change) FROM (SELECT *, -1 AS change FROM before) AS changed WHERE occasion = '' "
        "GROUP BY 1, 2, 3, 4 HAVING sum(change) <> 0 ORDER BY 1, 2, 3, 4 ON CONFLICT (activity_id, bucket, state, "
        "marks, part) DO UPDATE SET number = kept.number + excluded.number; END IF; RETURN NULL; END $$"
    ),
    (
        "CREATE OR REPLACE TRIGGER sends_inserted AFTER INSERT ON sends REFERENCING NEW TABLE AS after FOR EACH "
        "STATEMENT EXECUTE FUNCTION count_sends()"
    ),
    (
        "CREATE OR REPLACE TRIGGER sends_updated AFTER UPDATE ON sends REFERENCING OLD TABLE AS before NEW TABLE AS "
        "after FOR EACH STATEMENT EXECUTE FUNCTION count_sends()"
    ),
    (
        "CREATE OR REPLACE TRIGGER sends_deleted AFTER DELETE ON sends REFERENCING OLD TABLE AS before FOR EACH "
        "STATEMENT EXECUTE FUNCTION count_sends()"
    ),
)


def upgrade() -> None:
    op.create_table(
        "send_counts",
        sa.Column(
            "activity_id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), autoincrement=False, nullable=False
        ),
        sa.Column("bucket", db.UtcDateTime(), nullable=False),
        sa.Column("state", sa.String(length=20), nullable=False),
        sa.Column("marks", sa.SmallInteger(), autoincrement=False, nullable=False),
        sa.Column("part", sa.SmallInteger(), autoincrement=False, nullable=False),
        sa.Column("number", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("activity_id", "bucket", "state", "marks", "part", name=op.f("pk_send_counts")),
        sqlite_with_rowid=False,
    )
    postgres = op.get_bind().dialect.name == "postgresql"
    # The triggers first: on PostgreSQL their lock keeps writers away until the counters are complete.
    for statement in _POSTGRES if postgres else _SQLITE:
        op.get_bind().exec_driver_sql(statement)
    bucket = _POSTGRES_BUCKET if postgres else _SQLITE_BUCKET
    op.execute(
        "INSERT INTO send_counts (activity_id, bucket, state, marks, part, number)"  # noqa: S608
        f" SELECT activity_id, {bucket}, state, {_MARKS}, 0, count(*) FROM sends WHERE occasion = ''"
        " GROUP BY 1, 2, 3, 4"
    )
