"""How Alembic reaches our databases; run by it, imported by nobody."""

from typing import Any, Literal

import sqlalchemy as sa
from alembic import context
from alembic.autogenerate.api import AutogenContext

from campaigns import db

# Waiting for a lock queues every later query behind the migration, so it rather gives up.
_LOCK_TIMEOUT = "5s"


def _render(kind: str, item: Any, _context: AutogenContext) -> str | Literal[False]:
    """Our own types by their names; enums as the strings that they are in the database."""
    if kind == "type" and isinstance(item, sa.Enum):
        return f"sa.String(length={item.length})"
    if kind == "type" and type(item).__module__ == db.__name__:
        return f"db.{type(item).__name__}()"
    return False


def _metadata() -> sa.MetaData | None:
    """Every table, for drafting only: a start should not wait for all rooms to be imported."""
    if not context.config.attributes.get("drafting"):
        return None
    import wsgi  # noqa: F401  (knows every room)

    return db.Base.metadata


def _migrate(connection: sa.Connection) -> None:
    sqlite = connection.dialect.name == "sqlite"
    context.configure(
        connection=connection,
        target_metadata=_metadata(),
        render_as_batch=sqlite,  # SQLite can't alter a table: batch mode copies it.
        render_item=_render,
        compare_type=True,
    )
    if not sqlite:
        connection.exec_driver_sql(f"SET lock_timeout = '{_LOCK_TIMEOUT}'")
    with context.begin_transaction():
        context.run_migrations()
    connection.commit()


given: sa.Connection | None = context.config.attributes.get("connection")
if given is not None:
    _migrate(given)
else:
    with db.engine().connect() as fresh:
        _migrate(fresh)
