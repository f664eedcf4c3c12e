"""The request's database session.

GET and HEAD get a read-only session, which never waits for SQLite's writer; everything else a
writing one, unless its view says ``@only_reads``. A view commits by itself (``db_session().commit()``):
commit at the edge. What was not committed is rolled back when the request ends.
"""

from collections.abc import Callable
from typing import TypeVar

from flask import Flask, current_app, g, request
from sqlalchemy.orm import Session

from campaigns import db

View = TypeVar("View", bound=Callable[..., object])


def only_reads(view: View) -> View:
    """Say of a view that takes a POST that it changes nothing: it asks about what was typed."""
    view.only_reads = True  # type: ignore[attr-defined]
    return view


def db_session() -> Session:
    """The session of this request, begun at the first call."""
    if "db_session" not in g:
        g.db_session = db.new_session(read_only=_only_reads())
    session: Session = g.db_session
    return session


def _only_reads() -> bool:
    view = current_app.view_functions.get(request.endpoint or "")
    return request.method in ("GET", "HEAD", "OPTIONS") or getattr(view, "only_reads", False)


def let_others_write() -> None:
    """End a transaction that has only looked so far, before something slow: a body that a stranger
    sends by drops, a compiler. What was read stays read."""
    if "db_session" in g and not _only_reads():
        db_session().commit()


def _close(_error: BaseException | None) -> None:
    session: Session | None = g.pop("db_session", None)
    if session is not None:
        session.close()


def init(app: Flask) -> None:
    app.teardown_appcontext(_close)
