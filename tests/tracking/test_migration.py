"""Migration of the event log: ids by spool offset, and partitions."""

import sqlalchemy as sa
from alembic import command
from alembic.script import ScriptDirectory
from sqlalchemy import Engine
from sqlalchemy.orm import Session

from campaigns import db
from campaigns.migrations import schema
from tests.architecture.test_schema import empty  # noqa: F401  (a fixture)
from tracking.jobs import counter_check

AFTER = "523a55912ee9"


def to(engine: Engine, revision: str) -> None:
    config = schema.alembic_config()
    with engine.connect() as connection:
        config.attributes["connection"] = connection
        command.upgrade(config, revision)


def test_events_marks_rollups_and_credits_are_carried_over(empty: Engine) -> None:  # noqa: F811
    before = ScriptDirectory.from_config(schema.alembic_config()).get_revision(AFTER).down_revision
    assert isinstance(before, str)
    to(empty, before)
    old = sa.MetaData()
    with empty.connect() as connection:
        off = {"sqlite": "PRAGMA foreign_keys = OFF", "postgresql": "SET session_replication_role = replica"}
        raw = connection.connection.cursor()  # Foreign keys are off: the conversion of the credit row is left out.
        raw.execute(off[empty.dialect.name])
        raw.close()
        old.reflect(connection, only=["events", "first_seen", "rollups"])
        at = 1_800_000_000_000_000 if empty.dialect.name == "sqlite" else db.from_micros(1_800_000_000_000_000)
        same = {"activity_id": 7, "kind": 2, "link": 0, "at": at}
        event = same | {"reasons": 1 << 16, "rules": 1, "network": 1 << 47, "user_agent_id": 3}
        connection.execute(
            old.tables["events"].insert(),
            [
                event | {"id": 1, "spool_id": 2, "offset": 0, "label": 0, "send_id": 7 << 32 | 1},
                event | {"id": 2, "spool_id": 2, "offset": 1 << 33, "label": 1, "send_id": 7 << 32 | 2},
                event | {"id": 3, "spool_id": 1, "offset": 99, "label": 2, "send_id": None},
            ],
        )
        marks = [(7 << 32 | 1, 2, 0), (7 << 32 | 2, 2, 1), (7 << 32 | 2, 1, 1)]
        connection.execute(
            old.tables["first_seen"].insert(),
            [same | {"send_id": send, "kind": kind, "label": label} for send, kind, label in marks],
        )
        bucket = {"activity_id": 7, "link": 0, "bucket": at}
        counts = [(2, 0, 1, 1), (2, 1, 1, 1), (2, 2, 1, 0), (1, 1, 0, 1)]
        connection.execute(
            old.tables["rollups"].insert(),
            [
                bucket | {"kind": kind, "label": label, "events": events, "uniques": uniques}
                for kind, label, events, uniques in counts
            ],
        )
        connection.exec_driver_sql(
            "INSERT INTO credits (conversion_id, model, activity_id, share, touch, settling_event_id)"
            """ VALUES (1, 'first_touch', 7, 1, '{"kind": "click", "event_id": "2"}', 1),"""
            """ (1, 'last_touch', 7, 1, '{"kind": "submission", "event_id": null}', NULL)"""
        )
        connection.commit()
    to(empty, AFTER)
    with empty.connect() as connection:
        ids = connection.exec_driver_sql("SELECT id FROM events ORDER BY label").scalars().all()
        assert ids == [2 << 40, 2 << 40 | 1 << 33, 1 << 40 | 99]
        credits = sa.Table("credits", sa.MetaData(), autoload_with=connection)
        found = connection.execute(sa.select(credits.c.touch, credits.c.settling_event_id).order_by(credits.c.model))
        first, last = found.all()
        assert first == ({"kind": "click", "event_id": str(2 << 40 | 1 << 33)}, 2 << 40)
        assert last == ({"kind": "submission", "event_id": None}, None)
    to(empty, "head")
    with Session(empty) as session:
        assert counter_check.compare(session) == []


PARTED = "b51e07c3a9d4"


def test_events_move_into_their_parts(empty: Engine) -> None:  # noqa: F811
    before = ScriptDirectory.from_config(schema.alembic_config()).get_revision(PARTED).down_revision
    assert isinstance(before, str)
    to(empty, before)
    old = sa.MetaData()
    old.reflect(empty, only=["events"])
    at = 1_800_000_000_000_000 if empty.dialect.name == "sqlite" else db.from_micros(1_800_000_000_000_000)
    same: dict[str, object] = {
        "activity_id": 7,
        "kind": 2,
        "link": 1,
        "at": at,
        "reasons": 1,
        "rules": 1,
        "network": 5,
        "user_agent_id": 3,
    }
    rows = [
        {**same, "id": number, "label": number % 3, "send_id": None if number % 2 else 9} for number in range(1, 30)
    ]
    with empty.begin() as connection:
        connection.execute(old.tables["events"].insert(), rows)
        kept = connection.exec_driver_sql("SELECT * FROM events ORDER BY id").all()
    to(empty, "head")
    with empty.connect() as connection:
        assert connection.exec_driver_sql("SELECT * FROM events ORDER BY id").all() == kept
        if empty.dialect.name == "postgresql":
            parts = "SELECT tableoid::regclass::text, label = 0 FROM events GROUP BY 1, 2"
            assert {tuple(row) for row in connection.exec_driver_sql(parts)} == {
                ("events_settling", True),
                ("events_settled", False),
            }
