"""The database session of a request.

GET and HEAD get a read-only session, which never waits for SQLite's write lock; other methods get a writing one, unless
their view is marked ``@only_reads``. A view commits explicitly (``db_session().commit()``). Uncommitted changes are
rolled back when the request ends.
"""

from collections.abc import Callable
from typing import TypeVar

from flask import Flask, current_app, g, request
from sqlalchemy.orm import Session

from campaigns import db

View = TypeVar("View", bound=Callable[..., object])


def only_reads(view: View) -> View:
    """Mark a view that takes POST as read-only: it evaluates the input and changes nothing."""
    view.only_reads = True  # type: ignore[attr-defined]
    return view


def db_session() -> Session:
    """The session of this request, created at the first call."""
    if "db_session" not in g:
        g.db_session = db.new_session(read_only=_is_read_only())
    session: Session = g.db_session
    return session


def _is_read_only() -> bool:
    view = current_app.view_functions.get(request.endpoint or "")
    return request.method in ("GET", "HEAD", "OPTIONS") or getattr(view, "only_reads", False)


def release_write_lock() -> None:
    """End a transaction that has only read so far, before something slow, so that other writers don't wait for it.

    Slow are, for example, a body that arrives in small pieces, or a compiler. Loaded objects stay loaded.
    """
    if "db_session" in g and not _is_read_only():
        db_session().commit()


def _close(_error: BaseException | None) -> None:
    session: Session | None = g.pop("db_session", None)
    if session is not None:
        session.close()


def init(app: Flask) -> None:
    app.teardown_appcontext(_close)
