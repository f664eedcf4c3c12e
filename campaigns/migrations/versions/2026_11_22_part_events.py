"""Part events: on PostgreSQL what settles lies apart from what is final, which is then never written again."""

from alembic import op

revision = "b51e07c3a9d4"
down_revision = "b44f2eb498d6"

_COLUMNS = "id, at, send_id, network, activity_id, user_agent_id, reasons, kind, label, rules, link"


def upgrade() -> None:
    if op.get_bind().dialect.name != "postgresql":
        return  # SQLite changes a label where it stands.
    op.execute("LOCK TABLE events")
    op.execute("ALTER TABLE events RENAME TO events_before")
    op.execute("ALTER TABLE events_before DROP CONSTRAINT pk_events")
    for name in ("send_id", "activity_id_at", "settling"):
        op.execute(f"DROP INDEX ix_events_{name}")
    op.execute("CREATE TABLE events (LIKE events_before INCLUDING DEFAULTS) PARTITION BY LIST (label)")
    op.execute(
        "CREATE TABLE events_settling PARTITION OF events FOR VALUES IN (0)"
        " WITH (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 20000)"
    )
    op.execute("CREATE TABLE events_settled PARTITION OF events DEFAULT")
    op.execute(f"INSERT INTO events ({_COLUMNS}) SELECT {_COLUMNS} FROM events_before ORDER BY at, id")  # noqa: S608
    op.execute("DROP TABLE events_before")
    op.execute("CREATE UNIQUE INDEX ix_events_settling_id ON events_settling (id)")
    op.execute("CREATE UNIQUE INDEX ix_events_settled_id ON events_settled (id)")
    op.execute("CREATE INDEX ix_events_send_id ON events (send_id)")
    op.execute("CREATE INDEX ix_events_activity_id_at ON events (activity_id, at)")
    op.execute("CREATE INDEX ix_events_settling ON events (at) WHERE label = 0")
