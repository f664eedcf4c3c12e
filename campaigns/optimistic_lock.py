"""Optimistic locking of rows that are edited by forms: the second of two concurrent saves fails."""

from typing import Any, Protocol

from sqlalchemy import update
from sqlalchemy.orm import Session
from sqlalchemy.orm.attributes import set_committed_value

from campaigns.errors import Conflict
from campaigns.i18n import N_


class Versioned(Protocol):
    """A row whose ``revision`` is raised by every save through a form."""

    @property
    def id(self) -> int: ...

    @property
    def revision(self) -> int: ...


class EditConflict(Conflict):
    """Somebody else saved the row since the form was opened."""


def bump_revision(session: Session, row: Versioned, expected: int | None) -> None:
    """Raise ``row.revision`` by one, provided that it is still ``expected`` (None: the revision as it was read).

    Works by compare-and-swap, so exactly one of two concurrent saves succeeds.
    Raises EditConflict when the other save was first; ``row`` then holds the values of that save.
    """
    model: Any = type(row)
    expected = row.revision if expected is None else expected
    with session.no_autoflush:  # Runs before the changes are flushed: a save that fails must write nothing.
        new_revision = session.scalar(
            update(model)
            .where(model.id == row.id, model.revision == expected)
            .values(revision=expected + 1)
            .returning(model.revision)
            .execution_options(synchronize_session=False)
        )
    if new_revision is None:
        session.refresh(row)
        raise EditConflict(N_("Somebody else saved this in the meantime. Nothing of theirs was overwritten."))
    set_committed_value(row, "revision", new_revision)
