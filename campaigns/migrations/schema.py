"""Schema version of a database, and its upgrade with Alembic."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType

import sqlalchemy as sa
from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from alembic.util import CommandError

from campaigns.migrations import from_0_1

_PYPROJECT = Path(__file__).parents[2] / "pyproject.toml"


def alembic_config() -> Config:
    return Config(toml_file=_PYPROJECT)


def head_revision() -> str | None:
    """The newest revision, which the models of this version correspond to."""
    return ScriptDirectory.from_config(alembic_config()).get_current_head()


def current_revision(engine: sa.Engine) -> str | None:
    """The revision of the database; None for an empty one."""
    with engine.execution_options(read_only=True).connect() as connection:
        return MigrationContext.configure(connection).get_current_revision()


def is_current(engine: sa.Engine) -> bool:
    return current_revision(engine) == head_revision()


class UpgradeRefused(CommandError):
    """The database belongs to a version that cannot be upgraded directly; the message says what to install first."""


def upgrade(engine: sa.Engine) -> None:
    """Upgrade the database to the newest revision; does nothing when it is there already.

    Concurrent calls are safe: on PostgreSQL one of them waits for an advisory lock. Raises UpgradeRefused for a
    database older than the last revision of version 0.1, and Alembic's CommandError for a revision that this version
    doesn't know, because a newer version wrote it.
    """
    config = alembic_config()
    with engine.connect() as connection, _migration_lock(connection):
        found = MigrationContext.configure(connection).get_current_revision()
        connection.rollback()
        if found in from_0_1.EARLIER_REVISIONS:
            raise UpgradeRefused(
                "This database was made by an earlier build of Kampania 0.1. Install the last 0.1 release, run"
                " `kampania migrate` with it, then install this version again"
            )
        if found == from_0_1.LAST_REVISION:
            from_0_1.upgrade(connection, _baseline(config))
        config.attributes["connection"] = connection
        command.upgrade(config, "head")


def _baseline(config: Config) -> ModuleType:
    (revision,) = ScriptDirectory.from_config(config).get_bases()
    script = ScriptDirectory.from_config(config).get_revision(revision)
    assert script is not None
    return script.module


@contextmanager
def _migration_lock(connection: sa.Connection) -> Iterator[None]:
    """On PostgreSQL, let one process migrate at a time; SQLite's write lock does it by itself."""
    if connection.dialect.name != "postgresql":
        yield
        return
    connection.exec_driver_sql("SELECT pg_advisory_lock(hashtext('kampania.migrations'))")
    connection.commit()
    try:
        yield
    finally:
        connection.rollback()
        connection.exec_driver_sql("SELECT pg_advisory_unlock(hashtext('kampania.migrations'))")
        connection.commit()


def draft(engine: sa.Engine, message: str) -> None:
    """Write a migration file from the difference between the database of ``engine`` and the models."""
    config = alembic_config()
    with engine.connect() as connection:
        config.attributes.update(connection=connection, drafting=True)
        command.revision(config, message=message, autogenerate=True)


def include_object_for(engine_name: str) -> Callable[..., bool]:
    """A function for Alembic's ``include_object``: whether an index exists on this dialect (see ``Index.ddl_if``)."""

    def include(item: object, _name: str | None, _kind: str, _reflected: bool, _other: object) -> bool:
        condition = getattr(item, "_ddl_if", None)
        return condition is None or condition.dialect == engine_name

    return include
