"""Migrations create the schema of the models, on both databases."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
import sqlalchemy as sa
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from alembic.util import CommandError

import wsgi  # noqa: F401  (registers every table)
from campaigns import db
from campaigns.migrations import schema


@pytest.fixture(params=["sqlite", "postgres"])
def empty(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[sa.Engine]:
    """A database without tables."""
    if request.param == "sqlite":
        engine = db.make_engine(f"sqlite:///{tmp_path / 'empty.db'}")
        yield engine
        engine.dispose()
        return
    server: sa.Engine = request.getfixturevalue("postgres_engine")
    with server.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.exec_driver_sql("DROP DATABASE IF EXISTS migrated")
        connection.exec_driver_sql("CREATE DATABASE migrated")
    engine = db.make_engine(server.url.set(database="migrated").render_as_string(hide_password=False))
    yield engine
    engine.dispose()
    with server.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.exec_driver_sql("DROP DATABASE migrated")


def _is_not_partition(name: str | None, kind: str, _parents: object) -> bool:
    """Exclude the partitions: tracking.models.events creates them with the partitioned table."""
    return kind != "table" or name not in ("events_settling", "events_settled")


def test_upgrading_from_nothing_gives_the_tables_of_the_models(empty: sa.Engine) -> None:
    schema.upgrade(empty)
    with empty.connect() as connection:
        opts = {"compare_type": True, "compare_server_default": True, "include_name": _is_not_partition}
        opts["include_object"] = schema.include_object_for(connection.dialect.name)
        context = MigrationContext.configure(connection, opts=opts)
        assert compare_metadata(context, db.Base.metadata) == []


def test_upgrading_from_nothing_gives_the_triggers_of_the_models(empty: sa.Engine) -> None:
    """Comparing tables doesn't cover triggers; a SQLite migration that copies a table loses them."""
    schema.upgrade(empty)
    migrated = _triggers(empty)
    with empty.begin() as connection:
        for name, table in migrated:
            connection.exec_driver_sql(f"DROP TRIGGER {name}" + ("" if table is None else f" ON {table}"))
    db.Base.metadata.create_all(empty)
    assert _triggers(empty) == migrated
    assert len(migrated) >= 3


def _triggers(engine: sa.Engine) -> dict[tuple[str, str | None], str]:
    """The definition of each trigger by its name and (on PostgreSQL) its table."""
    with engine.connect() as connection:
        if engine.dialect.name == "sqlite":
            rows = connection.exec_driver_sql("SELECT name, NULL, sql FROM sqlite_master WHERE type = 'trigger'")
        else:
            rows = connection.exec_driver_sql(
                "SELECT t.tgname, t.tgrelid::regclass::text, pg_get_triggerdef(t.oid) || p.prosrc FROM pg_trigger t"
                " JOIN pg_proc p ON p.oid = t.tgfoid WHERE NOT t.tgisinternal"
            )
        return {(name, table): " ".join(sql.replace("IF NOT EXISTS ", "").split()) for name, table, sql in rows}


def test_upgrading_twice_is_harmless(empty: sa.Engine) -> None:
    assert not schema.is_current(empty)
    schema.upgrade(empty)
    schema.upgrade(empty)
    assert schema.is_current(empty)


def test_a_database_of_a_newer_version_is_refused(empty: sa.Engine) -> None:
    schema.upgrade(empty)
    with empty.begin() as connection:
        connection.exec_driver_sql("UPDATE alembic_version SET version_num = 'tomorrow'")
    with pytest.raises(CommandError):
        schema.upgrade(empty)


def test_migrations_form_one_line_of_files_named_with_date_and_time() -> None:
    script = ScriptDirectory.from_config(schema.alembic_config())
    revisions = list(script.walk_revisions())
    assert len(script.get_heads()) == 1
    names = [Path(revision.path).name for revision in revisions]
    assert names == sorted(names, reverse=True)
    assert [name for name in names if not re.fullmatch(r"\d{4}_\d{2}_\d{2}_\d{4}_[a-z0-9_]+\.py", name)] == []
