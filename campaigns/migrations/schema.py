"""Whether a database stands where this program expects it, and the way there."""

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
    """The revision that this program's models stand for."""
    return ScriptDirectory.from_config(alembic_config()).get_current_head()


def current(engine: sa.Engine) -> str | None:
    """The revision at which the database stands; None for an empty one."""
    with engine.execution_options(read_only=True).connect() as connection:
        return MigrationContext.configure(connection).get_current_revision()


def is_current(engine: sa.Engine) -> bool:
    return current(engine) == newest()


def upgrade(engine: sa.Engine) -> None:
    """Bring the database to the newest revision; harmless when it stands there already.

    Two processes may call it at once: one of them waits. Raises alembic's CommandError for a
    database whose revision this program doesn't know, since a newer program made it.
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
    """Write the migration from what ``engine`` holds to what the models say."""
    config = alembic_config()
    with engine.connect() as connection:
        config.attributes.update(connection=connection, drafting=True)
        command.revision(config, message=message, autogenerate=True)


def belongs(engine_name: str) -> Callable[..., bool]:
    """What alembic's ``include_object`` asks: whether this database has an index, or it is another's alone."""

    def included(item: object, _name: str | None, _kind: str, _reflected: bool, _other: object) -> bool:
        only = getattr(item, "_ddl_if", None)
        return only is None or only.dialect == engine_name

    return included
