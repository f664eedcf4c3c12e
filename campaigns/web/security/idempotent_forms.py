"""Idempotent forms: submitting a form twice (double click, "back" and again) creates one object.

Each displayed form carries a random key. The key and the object are committed together, so the second of two
concurrent requests waits for the first and then redirects to its result.
"""

from typing import Any

from flask import g, redirect, request
from sqlalchemy import select
from sqlalchemy.exc import IntegrityError

from campaigns import clock
from campaigns.accounts.models import IdempotencyKey
from campaigns.web.request_session import db_session
from campaigns.web.security.current_actor import current_actor

_MAX_KEY_LENGTH = 40


def previous_result() -> Any:
    """A redirect to what this form created before; None the first time, and when the form carries no key."""
    key = request.form.get("once", "")
    if not key or len(key) > _MAX_KEY_LENGTH:
        return None
    session, stored_key = db_session(), f"{current_actor().id}:{key}"
    try:
        with session.begin_nested():
            g.made = IdempotencyKey(key=stored_key, url="", at=clock.now())
            session.add(g.made)
    except IntegrityError:
        g.pop("made")
        url = session.scalar(select(IdempotencyKey.url).where(IdempotencyKey.key == stored_key))
        return redirect(url, 303) if url else None
    return None


def commit_and_redirect(url: str) -> Any:
    """Commit the created object with the form's key, and redirect to ``url``."""
    row = g.pop("made", None)
    if row is not None:
        row.url = url
    db_session().commit()
    return redirect(url, 303)
