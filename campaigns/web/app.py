"""Application factory: templates, translations, sessions, security and error pages of the Flask application."""

import hashlib
import secrets
from enum import StrEnum
from pathlib import Path

from flask import Flask, redirect
from flask_wtf import CSRFProtect
from jinja2 import StrictUndefined
from werkzeug.routing import IntegerConverter, Map

from campaigns import config
from campaigns.web import request_session
from campaigns.web.assets import compression, static_files
from campaigns.web.i18n import formatting
from campaigns.web.pages import error_pages, responsive_tables
from campaigns.web.security import authentication, input_cleaning, security_headers
from campaigns.web.security.csrf_exemptions import EXEMPT

TEMPLATES = Path(__file__).parents[2] / "templates"
MAX_REQUEST_BYTES = 64 * 1024 * 1024
"""64 MiB: imports are the largest uploads. A proxy in front may have a lower limit."""

_TONES = {
    "green": {"live", "active", "sent", "granted", "full", "won", "qualified", "done", "applied", "delivered", "ok"},
    "azure": {"scheduled", "approved", "sending", "running", "working", "contacted", "queued", "new", "checked"},
    "yellow": {"paused", "deferred", "held", "review", "settling", "warning", "anonymous", "expanding"},
    "red": {"failed", "bounced", "cancelled", "lost", "withdrawn", "error", "complained", "invalid", "unknown"},
}


def tone_of(member: StrEnum) -> str:
    """The colour of a state, the same on every page."""
    return next((tone for tone, values in _TONES.items() if member.value in values), "secondary")


def _flask_secret(secret: bytes) -> str:
    """Flask's session key, derived from ours by a keyed hash, so that one can't be computed from the other."""
    return hashlib.blake2b(b"", key=secret[:64], person=b"flask-session", digest_size=32).hexdigest()


class RowIdConverter(IntegerConverter):
    """An ``<int:…>`` in a URL; numbers that a database can't store (above 63 bits) don't match and give 404."""

    def __init__(self, url_map: Map, *args: int, **limits: int) -> None:
        super().__init__(url_map, *args, **{"max": 2**63 - 1, **limits})  # type: ignore[arg-type]


def configure(app: Flask) -> None:
    """Configure ``app`` and install everything but the packages' blueprints, which are registered afterwards."""
    settings = config.settings()
    keys = [_flask_secret(secret) for _, secret in settings.secret_keys]
    app.config.update(
        SECRET_KEY=keys[-1],
        SECRET_KEY_FALLBACKS=keys[:-1],
        SESSION_COOKIE_NAME="kampania",
        SESSION_COOKIE_HTTPONLY=True,
        SESSION_COOKIE_SAMESITE="Lax",
        SESSION_COOKIE_SECURE=settings.secure,
        REMEMBER_COOKIE_SECURE=settings.secure,
        MAX_CONTENT_LENGTH=MAX_REQUEST_BYTES,
        MAX_FORM_MEMORY_SIZE=4 * 1024 * 1024,
        WTF_CSRF_TIME_LIMIT=None,  # Lasts as long as the session: a form left open overnight can still be saved.
    )
    app.jinja_options = {"autoescape": True, "undefined": StrictUndefined, "trim_blocks": True, "lstrip_blocks": True}
    app.template_folder = str(TEMPLATES)
    app.url_map.converters["int"] = RowIdConverter
    request_session.init(app)
    static_files.init(app)
    authentication.init(app)
    CSRFProtect(app)
    input_cleaning.init(app)
    formatting.init(app)
    responsive_tables.init(app)
    compression.init(app)
    security_headers.init(app)
    error_pages.init(app)
    app.jinja_env.globals.update(
        tone_of=tone_of,
        catcher=lambda: config.settings().catcher,
        random_key=lambda: secrets.token_urlsafe(12),  # For forms that must have an effect only once.
    )


def finish_setup(app: Flask) -> None:
    """Add the home URL and the CSRF exemptions; call after the blueprints are registered."""
    app.add_url_rule("/", "home", lambda: redirect("/today", 303))
    for endpoint, view in app.view_functions.items():
        if endpoint in EXEMPT or hasattr(view, "scope"):
            app.extensions["csrf"].exempt(view)
