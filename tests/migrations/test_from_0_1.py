"""Upgrade of 0.1 databases: no row is lost, names and stored values are mapped, the schema equals a fresh one.

The fixtures are dumps of a 0.1 demo database at its last revision, with a row in every table.
"""

import gzip
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import ModuleType

import pytest
import sqlalchemy as sa
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from sqlalchemy.orm import Session

from campaigns import db
from campaigns.accounts.models import AuditLogEntry
from campaigns.delivery.models import Relay, RelayHealth, RelayReplyCount
from campaigns.delivery.sends.counters import SendCount
from campaigns.delivery.smtp.replies import DeliveryStatus
from campaigns.migrations import from_0_1, schema
from campaigns.planning.models import Activity, Channel, EmailDetails
from campaigns.retries import JobFailure, JobType
from tracking.jobs import counter_check

HERE = Path(__file__).parent


@pytest.fixture(params=["sqlite", "postgres"])
def version_0_1(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[sa.Engine]:
    """A database of version 0.1 at its last revision."""
    if request.param == "sqlite":
        engine = db.make_engine(f"sqlite:///{tmp_path / 'old.db'}")
        with engine.connect() as connection:
            driver = connection.connection.driver_connection
            assert driver is not None
            driver.executescript(f"PRAGMA foreign_keys=OFF; {_dump('sqlite')} PRAGMA foreign_keys=ON;")
        yield engine
        engine.dispose()
        return
    server: sa.Engine = request.getfixturevalue("postgres_engine")
    with server.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.exec_driver_sql("DROP DATABASE IF EXISTS version_0_1")
        connection.exec_driver_sql("CREATE DATABASE version_0_1")
    engine = db.make_engine(server.url.set(database="version_0_1").render_as_string(hide_password=False))
    with engine.connect() as connection:
        driver = connection.connection.driver_connection
        assert driver is not None
        driver.execute(_dump("postgresql"))
        driver.execute("SELECT set_config('search_path', '\"$user\", public', false)")
        connection.connection.commit()
    yield engine
    engine.dispose()
    with server.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.exec_driver_sql("DROP DATABASE version_0_1")


def _dump(dialect: str) -> str:
    return gzip.decompress((HERE / f"version_0_1.{dialect}.sql.gz").read_bytes()).decode()


def _counts(engine: sa.Engine) -> dict[str, int]:
    """Rows by table."""
    with engine.connect() as connection:
        tables = [name for name in sa.inspect(connection).get_table_names() if not name.startswith("events_")]
        return {
            name: connection.scalar(sa.select(sa.func.count()).select_from(sa.table(name))) or 0
            for name in tables
            if name != "alembic_version"
        }


def test_no_row_is_lost(version_0_1: sa.Engine) -> None:
    before = _counts(version_0_1)
    assert min(before.values()) > 0, "the fixture has a row in every table"
    schema.upgrade(version_0_1)
    after = _counts(version_0_1)
    emails = after.pop("email_details")
    renamed = dict(from_0_1.TABLES)
    expected = {renamed.get(name, name): count for name, count in before.items()}
    assert {name: after.get(name) for name in expected} == expected  # Later migrations may add tables.
    with Session(version_0_1) as session:
        assert emails == len(session.scalars(sa.select(Activity.id).where(Activity.channel == Channel.EMAIL)).all())


def test_relays_change_places(version_0_1: sa.Engine) -> None:
    """The name `relays` is freed by one table before the other takes it."""
    with version_0_1.connect() as connection:
        configured = connection.exec_driver_sql("SELECT host FROM configured_relays").scalar_one()
        failing = connection.exec_driver_sql("SELECT name FROM relays").scalar_one()
    schema.upgrade(version_0_1)
    with Session(version_0_1) as session:
        assert session.scalars(sa.select(Relay.host)).one() == configured
        assert session.scalars(sa.select(RelayHealth.name)).one() == failing


def test_stored_values_are_mapped(version_0_1: sa.Engine) -> None:
    schema.upgrade(version_0_1)
    with Session(version_0_1) as session:
        assert set(session.scalars(sa.select(JobFailure.job))) == set(JobType)
        assert set(session.scalars(sa.select(RelayReplyCount.status))) >= set(DeliveryStatus)
        former = {value for values in from_0_1.VALUES.values() for value in values}
        actions = set(session.scalars(sa.select(AuditLogEntry.action)))
        assert not actions & (former - {"expand", "settle"})
        assert {"create", "update", "delete", "edit notes", "start trial"} <= actions
        assert set(session.scalars(sa.select(AuditLogEntry.actor_kind))) <= {"system", "user", "public", "api key"}


def test_every_column_can_be_read_as_its_type(version_0_1: sa.Engine) -> None:
    schema.upgrade(version_0_1)
    with version_0_1.connect() as connection:
        for table in db.Base.metadata.sorted_tables:
            connection.execute(sa.select(table)).all()


def test_email_details_hold_what_activities_held(version_0_1: sa.Engine) -> None:
    query = (
        "SELECT id, message_id, version_id, list_id, expanded_to FROM activities WHERE channel = 'email' ORDER BY id"
    )
    with version_0_1.connect() as connection:
        before = [tuple(row) for row in connection.exec_driver_sql(query)]
    schema.upgrade(version_0_1)
    details = EmailDetails
    columns = details.activity_id, details.message_id, details.version_id, details.list_id, details.expanded_to
    with Session(version_0_1) as session:
        assert [tuple(row) for row in session.execute(sa.select(*columns).order_by(details.activity_id))] == before
        assert any(row[2] for row in before), "the fixture holds a launched mail"


def test_the_counters_go_on(version_0_1: sa.Engine) -> None:
    """The triggers write to the renamed tables, and a recount agrees with the counters."""
    schema.upgrade(version_0_1)
    db.set_engine(version_0_1)
    with Session(version_0_1) as session:
        wrong = [one for one in counter_check.find_mismatches(session) if one.key[0] != "conversion_attributions"]
        assert wrong == []
        launched = session.scalars(sa.select(SendCount.activity_id)).first()
        total = sa.select(sa.func.sum(SendCount.count)).where(SendCount.activity_id == launched)
        before = session.scalar(total) or 0
        session.execute(sa.text("DELETE FROM sends WHERE activity_id = :id AND occasion = ''"), {"id": launched})
        assert (session.scalar(total) or 0) < before
        session.rollback()


def _index(index: Mapping[str, object]) -> str:
    options = index.get("dialect_options")
    shown = (
        {name: str(option).replace('"', "") for name, option in options.items()} if isinstance(options, Mapping) else {}
    )
    return str({**index, "dialect_options": shown})


def _schema(engine: sa.Engine) -> dict[str, object]:
    """The names of columns, constraints, indexes and sequences in the database."""
    found: dict[str, object] = {}
    with engine.connect() as connection:
        inspector = sa.inspect(connection)
        for table in inspector.get_table_names():
            found[table] = {
                "columns": {column["name"]: column["nullable"] for column in inspector.get_columns(table)},
                "primary key": inspector.get_pk_constraint(table),
                "foreign keys": sorted(map(str, inspector.get_foreign_keys(table))),
                "unique": sorted(map(str, inspector.get_unique_constraints(table))),
                "indexes": sorted(map(_index, inspector.get_indexes(table))),
            }
        if engine.dialect.name == "postgresql":
            found["sequences"] = sorted(inspector.get_sequence_names())
            triggers = "SELECT tgname, pg_get_triggerdef(t.oid) || prosrc FROM pg_trigger t"
            triggers += " JOIN pg_proc p ON p.oid = tgfoid WHERE NOT tgisinternal"
        else:
            triggers = "SELECT name, sql FROM sqlite_master WHERE type = 'trigger'"
        found["triggers"] = {row[0]: row[1] for row in connection.exec_driver_sql(triggers)}
    return found


@pytest.fixture
def fresh(request: pytest.FixtureRequest, version_0_1: sa.Engine, tmp_path: Path) -> Iterator[sa.Engine]:
    """An empty database at the newest revision, on the same server."""
    if version_0_1.dialect.name == "sqlite":
        engine = db.make_engine(f"sqlite:///{tmp_path / 'fresh.db'}")
        schema.upgrade(engine)
        yield engine
        engine.dispose()
        return
    server: sa.Engine = request.getfixturevalue("postgres_engine")
    with server.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.exec_driver_sql("DROP DATABASE IF EXISTS fresh")
        connection.exec_driver_sql("CREATE DATABASE fresh")
    engine = db.make_engine(server.url.set(database="fresh").render_as_string(hide_password=False))
    schema.upgrade(engine)
    yield engine
    engine.dispose()
    with server.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.exec_driver_sql("DROP DATABASE fresh")


def test_the_schema_equals_a_fresh_one(version_0_1: sa.Engine, fresh: sa.Engine) -> None:
    schema.upgrade(version_0_1)
    migrated, wanted = _schema(version_0_1), _schema(fresh)
    assert migrated.keys() == wanted.keys()
    for name, definition in wanted.items():
        assert migrated[name] == definition, name
    with version_0_1.connect() as connection:
        opts = {"compare_type": True, "include_object": schema.include_object_for(connection.dialect.name)}
        opts["include_name"] = lambda name, kind, _parents: kind != "table" or not str(name).startswith("events_")
        context = MigrationContext.configure(connection, opts=opts)
        assert compare_metadata(context, db.Base.metadata) == []


@pytest.mark.parametrize("step", ["_map_values", "_check"])
def test_a_failed_upgrade_leaves_0_1_as_it_was(
    version_0_1: sa.Engine, step: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    before, rows = _schema(version_0_1), _counts(version_0_1)

    def fail(*_: object) -> None:
        raise RuntimeError("the disk is full")

    with monkeypatch.context() as patch:
        patch.setattr(from_0_1, step, fail)
        with pytest.raises(RuntimeError, match="disk"):
            schema.upgrade(version_0_1)
    assert schema.current_revision(version_0_1) == from_0_1.LAST_REVISION
    assert _schema(version_0_1) == before
    assert _counts(version_0_1) == rows
    schema.upgrade(version_0_1)
    assert schema.is_current(version_0_1)


def test_an_older_database_names_the_version_to_install_first(version_0_1: sa.Engine) -> None:
    with version_0_1.begin() as connection:
        connection.exec_driver_sql(f"UPDATE alembic_version SET version_num = '{min(from_0_1.EARLIER_REVISIONS)}'")
    with pytest.raises(schema.UpgradeRefused, match=r"last 0\.1 release"):
        schema.upgrade(version_0_1)


@pytest.mark.parametrize(
    ("former", "new"),
    [
        ("pk_people", "pk_users"),
        ("uq_people_email", "uq_users_email"),
        ("fk_configured_relays_x", "fk_relays_x"),
        ("pk_relays", "pk_relay_health"),
        ("ix_feedback_activity_id_finding", "ix_feedback_activity_id_feedback_type"),
        ("fk_leads_owner_id", "fk_leads_owner_id"),
        ("ix_arrivals_finding_due_at", "ix_inbound_messages_feedback_type_due_at"),
        ("people_id_seq", "users_id_seq"),
        ("ix_visits_arrival_id", "ix_visits_traffic_source_id"),
        ("pk_events", "pk_events"),
    ],
)
def test_names_follow_the_convention(former: str, new: str) -> None:
    assert from_0_1.new_name(former) == new


def test_the_map_is_complete() -> None:
    """Every table of this version is one that 0.1 had, or `email_details`."""
    modules: ModuleType = from_0_1
    renamed = {new for _, new in modules.TABLES}
    assert renamed <= set(db.Base.metadata.tables)
    for table, columns in modules.COLUMNS.items():
        assert set(columns.values()) <= set(db.Base.metadata.tables[table].columns.keys()), table
