"""Schema version of a database, and its upgrade with Alembic."""

from collections.abc import Callable
from pathlib import Path

import sqlalchemy as sa
from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory

_PYPROJECT = Path(__file__).parents[2] / "pyproject.toml"


def alembic_config() -> Config:
    return Config(toml_file=_PYPROJECT)


def newest() -> str | None:
    """The newest revision, which the models of this version correspond to."""
    return ScriptDirectory.from_config(alembic_config()).get_current_head()


def current(engine: sa.Engine) -> str | None:
    """The revision of the database; None for an empty one."""
    with engine.execution_options(read_only=True).connect() as connection:
        return MigrationContext.configure(connection).get_current_revision()


def is_current(engine: sa.Engine) -> bool:
    return current(engine) == newest()


def upgrade(engine: sa.Engine) -> None:
    """Upgrade the database to the newest revision; does nothing when it is there already.

    Concurrent calls are safe: on PostgreSQL one of them waits for an advisory lock. Raises Alembic's CommandError for a
    revision that this version doesn't know, because a newer version wrote it.
    """
    config = alembic_config()
    with engine.connect() as connection:
        if engine.dialect.name == "postgresql":
            connection.exec_driver_sql("SELECT pg_advisory_lock(hashtext('kampania.migrations'))")
            connection.commit()
        config.attributes["connection"] = connection
        command.upgrade(config, "head")
        if engine.dialect.name == "postgresql":
            connection.exec_driver_sql("SELECT pg_advisory_unlock(hashtext('kampania.migrations'))")
            connection.commit()


def draft(engine: sa.Engine, message: str) -> None:
    """Write a migration file from the difference between the database of ``engine`` and the models."""
    config = alembic_config()
    with engine.connect() as connection:
        config.attributes.update(connection=connection, drafting=True)
        command.revision(config, message=message, autogenerate=True)


def belongs(engine_name: str) -> Callable[..., bool]:
    """A function for Alembic's ``include_object``: whether an index exists on this dialect (see ``Index.ddl_if``)."""

    def included(item: object, _name: str | None, _kind: str, _reflected: bool, _other: object) -> bool:
        only = getattr(item, "_ddl_if", None)
        return only is None or only.dialect == engine_name

    return included
