"""lean events.

An event's id is its place in the log, so that no second unique index says so; narrow columns; no marks for
events that still settle; a table for records that could not be counted.
"""

import sqlalchemy as sa
from alembic import op

from campaigns import db

revision = "523a55912ee9"
down_revision = "733e08fe1cdd"

_BIG = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
_EVENT = "at, send_id, network, activity_id, user_agent_id, reasons, kind, label, rules, link"
_MARK = "send_id, activity_id, kind, link, label, at"
_COUNT = "activity_id, bucket, kind, link, label, events, uniques"
_PLACE = '(CAST(spool_id AS bigint) << 40 | "offset")'


def upgrade() -> None:
    for name in ("label_at", "send_id"):
        op.drop_index(f"ix_events_{name}", "events")
    for table in ("events", "first_seen", "rollups"):
        _put_away(table)
    _create_tables()
    op.execute(f"INSERT INTO events (id, {_EVENT}) SELECT {_PLACE}, {_EVENT} FROM old_events ORDER BY 1")  # noqa: S608
    op.execute(f"INSERT INTO first_seen ({_MARK}) SELECT {_MARK} FROM old_first_seen WHERE label <> 0 ORDER BY 1, 2")  # noqa: S608
    op.execute(f"INSERT INTO rollups ({_COUNT}) SELECT {_COUNT} FROM old_rollups ORDER BY 1, 2, 3, 4, 5")  # noqa: S608
    op.execute("UPDATE rollups SET uniques = 0 WHERE label = 0")
    _renumber_credits()
    for table in ("events", "first_seen", "rollups"):
        op.drop_table(f"old_{table}")
    op.create_index("ix_events_send_id", "events", ["send_id"])
    op.create_index("ix_events_activity_id_at", "events", ["activity_id", "at"])
    settling = sa.text("label = 0")
    op.create_index("ix_events_settling", "events", ["at"], sqlite_where=settling, postgresql_where=settling)


def _put_away(table: str) -> None:
    op.rename_table(table, f"old_{table}")
    if op.get_bind().dialect.name == "postgresql":  # Its constraints' names are the schema's own.
        op.execute(f"ALTER TABLE old_{table} DROP CONSTRAINT pk_{table}")


def _create_tables() -> None:
    op.create_table(
        "set_aside",
        sa.Column("id", _BIG, autoincrement=False, nullable=False),
        sa.Column("record", sa.LargeBinary(), nullable=False),
        sa.Column("error", sa.String(length=500), nullable=False),
        sa.Column("at", db.UtcDateTime(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_set_aside")),
    )
    op.create_table(
        "events",
        sa.Column("id", _BIG, autoincrement=False, nullable=False),
        sa.Column("at", db.UtcDateTime(), nullable=False),
        sa.Column("send_id", sa.BigInteger(), nullable=True),
        sa.Column("network", sa.BigInteger(), nullable=False),
        sa.Column("activity_id", sa.Integer(), nullable=False),
        sa.Column("user_agent_id", sa.Integer(), nullable=False),
        sa.Column("reasons", sa.Integer(), nullable=False),
        sa.Column("kind", sa.SmallInteger(), nullable=False),
        sa.Column("label", sa.SmallInteger(), nullable=False),
        sa.Column("rules", sa.SmallInteger(), nullable=False),
        sa.Column("link", sa.SmallInteger(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_events")),
    )
    op.create_table(
        "first_seen",
        sa.Column("send_id", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("activity_id", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("kind", sa.SmallInteger(), autoincrement=False, nullable=False),
        sa.Column("link", sa.SmallInteger(), autoincrement=False, nullable=False),
        sa.Column("label", sa.SmallInteger(), autoincrement=False, nullable=False),
        sa.Column("at", db.UtcDateTime(), nullable=False),
        sa.PrimaryKeyConstraint("send_id", "activity_id", "kind", "link", "label", name=op.f("pk_first_seen")),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "rollups",
        sa.Column("activity_id", _BIG, autoincrement=False, nullable=False),
        sa.Column("bucket", db.UtcDateTime(), nullable=False),
        sa.Column("kind", sa.SmallInteger(), autoincrement=False, nullable=False),
        sa.Column("link", sa.SmallInteger(), autoincrement=False, nullable=False),
        sa.Column("label", sa.SmallInteger(), autoincrement=False, nullable=False),
        sa.Column("events", _BIG, nullable=False),
        sa.Column("uniques", _BIG, nullable=False),
        sa.PrimaryKeyConstraint("activity_id", "bucket", "kind", "link", "label", name=op.f("pk_rollups")),
        sqlite_with_rowid=False,
    )


def _renumber_credits() -> None:
    """Credits name the event that earned them, as a number and inside ``touch``."""
    op.execute(
        f"UPDATE credits SET settling_event_id = (SELECT {_PLACE} FROM old_events e"  # noqa: S608
        " WHERE e.id = credits.settling_event_id) WHERE settling_event_id IS NOT NULL"
    )
    if op.get_bind().dialect.name == "postgresql":
        op.execute(
            f"UPDATE credits SET touch = jsonb_set(touch::jsonb, '{{event_id}}', to_jsonb({_PLACE}::text))::json"  # noqa: S608
            " FROM old_events e WHERE e.id = (credits.touch ->> 'event_id')::bigint"
        )
    else:
        op.execute(
            f"UPDATE credits SET touch = json_set(touch, '$.event_id', CAST({_PLACE} AS TEXT))"  # noqa: S608
            " FROM old_events e WHERE e.id = CAST(credits.touch ->> '$.event_id' AS INTEGER)"
        )
