"""Two people edit one thing: the second to save is told, and nobody is overwritten unseen."""

from typing import Any, Protocol

from sqlalchemy import update
from sqlalchemy.orm import Session
from sqlalchemy.orm.attributes import set_committed_value

from campaigns.errors import Conflict
from campaigns.i18n import N_


class Versioned(Protocol):
    """A row that counts its changes by people's forms."""

    @property
    def id(self) -> int: ...

    @property
    def revision(self) -> int: ...


class EditConflict(Conflict):
    """Somebody else saved the thing since the form was opened."""


def count_change(session: Session, thing: Versioned, seen: int | None) -> None:
    """Write down one more change of ``thing``, whose form was opened at revision ``seen``.

    By compare-and-swap, so of two saves at once one succeeds; None means the row as it was read.
    Raises ChangedMeanwhile, and then ``thing`` is what the other one saved.
    """
    kind: Any = type(thing)
    seen = thing.revision if seen is None else seen
    with session.no_autoflush:  # Before what was changed: the loser must leave nothing behind.
        counted = session.scalar(
            update(kind)
            .where(kind.id == thing.id, kind.revision == seen)
            .values(revision=seen + 1)
            .returning(kind.revision)
            .execution_options(synchronize_session=False)
        )
    if counted is None:
        session.refresh(thing)
        raise EditConflict(N_("Somebody else saved this in the meantime. Nothing of theirs was overwritten."))
    set_committed_value(thing, "revision", counted)
