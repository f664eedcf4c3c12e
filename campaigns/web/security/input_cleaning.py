"""Rejection of NUL characters in requests: PostgreSQL can't store them in text."""

from collections.abc import Iterable

from flask import Flask, request
from werkzeug.exceptions import BadRequest, NotFound

from campaigns.web.security.csrf_exemptions import EXEMPT


def _reject_nul() -> None:
    """Runs after the CSRF check, which has parsed the form already; exempt endpoints check their input themselves."""
    if _contains_nul(part for name, part in (request.view_args or {}).items() if name != "token"):
        raise NotFound
    if request.method in ("GET", "HEAD", "OPTIONS") or request.endpoint in EXEMPT:
        return
    if _contains_nul(value for values in request.form.listvalues() for value in values):
        raise BadRequest


def _contains_nul(texts: Iterable[object]) -> bool:
    return any("\x00" in text for text in texts if isinstance(text, str))


def init(app: Flask) -> None:
    app.before_request(_reject_nul)
