"""Alembic environment: connects migrations to the database. Executed by Alembic, never imported."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Literal

import sqlalchemy as sa
from alembic import context
from alembic.autogenerate.api import AutogenContext

from campaigns import db
from campaigns.migrations import schema

# A migration that waits for a lock blocks every later query of the table, so it gives up instead.
_LOCK_TIMEOUT = "5s"


def _render_type(kind: str, item: Any, _context: AutogenContext) -> str | Literal[False]:
    """Render the types of ``campaigns.db`` by name, and enums as the VARCHAR that they are in the database."""
    if kind == "type" and isinstance(item, sa.Enum):
        return f"sa.String(length={item.length})"
    if kind == "type" and type(item).__module__ == db.__name__:
        return f"db.{type(item).__name__}()"
    return False


def _metadata_for_drafting() -> sa.MetaData | None:
    """The metadata of all tables when drafting a migration, else None: an upgrade need not import every package."""
    if not context.config.attributes.get("drafting"):
        return None
    import tracking.registration  # noqa: F401  (every table)

    return db.Base.metadata


def _migrate(connection: sa.Connection) -> None:
    sqlite = connection.dialect.name == "sqlite"
    context.configure(
        connection=connection,
        target_metadata=_metadata_for_drafting(),
        render_as_batch=sqlite,  # SQLite can't alter a table: batch mode copies it.
        render_item=_render_type,
        include_object=schema.include_object_for(connection.dialect.name),
        compare_type=True,
    )
    if not sqlite:
        connection.exec_driver_sql(f"SET lock_timeout = '{_LOCK_TIMEOUT}'")
    with _foreign_keys_off(connection), context.begin_transaction():
        context.run_migrations()
    connection.commit()


@contextmanager
def _foreign_keys_off(connection: sa.Connection) -> Iterator[None]:
    """Turn foreign keys off on SQLite: batch mode drops the old copy of a table, which would cascade to its referrers.

    The pragma does nothing within a transaction, so it is set on the driver's own connection. Raises RuntimeError when
    the migration leaves more dangling references than there were before.
    """
    if connection.dialect.name != "sqlite":
        yield
        return
    connection.commit()
    driver = connection.connection.driver_connection
    assert driver is not None
    dangling = len(driver.execute("PRAGMA foreign_key_check").fetchall())
    driver.execute("PRAGMA foreign_keys=OFF")
    try:
        yield
        if len(driver.execute("PRAGMA foreign_key_check").fetchall()) > dangling:
            raise RuntimeError("The migration would leave rows that refer to nothing.")
    finally:
        if connection.in_transaction():
            connection.rollback()
        driver.execute("PRAGMA foreign_keys=ON")


given_connection: sa.Connection | None = context.config.attributes.get("connection")
if given_connection is not None:
    _migrate(given_connection)
else:
    with db.engine().connect() as own_connection:
        _migrate(own_connection)
