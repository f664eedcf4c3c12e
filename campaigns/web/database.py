"""The request's database session.

GET and HEAD get a read-only session, which never waits for SQLite's writer; everything else a
writing one. A view commits by itself (``db_session().commit()``): commit at the edge. What was
not committed is rolled back when the request ends.
"""

from flask import Flask, g, request
from sqlalchemy.orm import Session

from campaigns import db


def db_session() -> Session:
    """The session of this request, begun at the first call."""
    if "db_session" not in g:
        g.db_session = db.new_session(read_only=request.method in ("GET", "HEAD", "OPTIONS"))
    session: Session = g.db_session
    return session


def _close(_error: BaseException | None) -> None:
    session: Session | None = g.pop("db_session", None)
    if session is not None:
        session.close()


def init(app: Flask) -> None:
    app.teardown_appcontext(_close)
