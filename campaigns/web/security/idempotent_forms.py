"""A form that makes something makes it once: a double click, or a second sending after "back", leads to the first.

The form carries a key of its own, made when it was shown. Key and thing are committed together, so of
two requests at once one waits for the other and then finds its answer.
"""

from typing import Any

from flask import g, redirect, request
from sqlalchemy import select
from sqlalchemy.exc import IntegrityError

from campaigns import clock
from campaigns.accounts.models import IdempotencyKey
from campaigns.web.request_session import db_session
from campaigns.web.security.current_actor import actor

_LONGEST_KEY = 40


def already() -> Any:
    """The way to what this very form made before; None the first time, and when the form has no key."""
    key = request.form.get("once", "")
    if not key or len(key) > _LONGEST_KEY:
        return None
    session, mine = db_session(), f"{actor().id}:{key}"
    try:
        with session.begin_nested():
            g.made = IdempotencyKey(key=mine, url="", at=clock.now())
            session.add(g.made)
    except IntegrityError:
        g.pop("made")
        url = session.scalar(select(IdempotencyKey.url).where(IdempotencyKey.key == mine))
        return redirect(url, 303) if url else None
    return None


def made(url: str) -> Any:
    """Commit what was made and lead to it."""
    row = g.pop("made", None)
    if row is not None:
        row.url = url
    db_session().commit()
    return redirect(url, 303)
