"""Session authentication: the signed-in user, the organisation, and the check before each request.

A session holds the user's id *and* their session epoch. Locking a user or changing a password raises the epoch, so
earlier sessions end with their next request.
"""

from typing import Any
from urllib.parse import quote, urlsplit

from flask import Flask, Response, g, redirect, request
from flask_login import LoginManager, UserMixin, current_user

from campaigns.accounts.actor import PERMISSIONS, Permission
from campaigns.accounts.models import Organisation, User
from campaigns.web.request_session import db_session, release_write_lock

ENDPOINTS_BEFORE_SETUP = frozenset({"static", "favicon", "accounts_public.setup", "accounts_public.health"})


class SessionUser(UserMixin):  # type: ignore[misc]
    """The user of this session, as Flask-Login requires it."""

    def __init__(self, person: User) -> None:
        self.person = person

    def get_id(self) -> str:
        return f"{self.person.id}.{self.person.session_epoch}"


def load_session_user(key: str) -> SessionUser | None:
    """The user of a session; None when the user was locked or has a new password since."""
    if g.get("database_away"):
        return None
    number, _, epoch = key.partition(".")
    if not number.isdigit() or not epoch.isdigit():
        return None
    person = db_session().get(User, int(number))
    if person is None or person.locked_at is not None or person.session_epoch != int(epoch):
        return None
    return SessionUser(person)


def current_organisation() -> Organisation | None:
    """The organisation, or None before the first run; read once per request."""
    if g.get("database_away"):
        return None
    if "organisation" not in g:
        g.organisation = db_session().get(Organisation, 1)
    row: Organisation | None = g.organisation
    return row


def may(permission: str) -> bool:
    """Whether the signed-in user has the permission; for templates, e.g. ``may("plan")``."""
    if not current_user.is_authenticated:
        return False
    return Permission(permission) in PERMISSIONS[current_user.person.role]


def safe_next(target: str | None, default: str = "/") -> str:
    """``target`` when it is a path of this site, else ``default``, so that a link can't redirect elsewhere.

    Browsers read backslashes as slashes and drop control characters, so those are refused too.
    """
    if not target or not target.startswith("/") or target.startswith(("//", "/\\")):
        return default
    if "\\" in target or any(ord(char) < 0x20 for char in target):
        return default
    parts = urlsplit(target)
    return default if parts.scheme or parts.netloc else target


def redirect_to(path: str) -> Any:
    """Redirect the browser, also from within an htmx request."""
    if request.headers.get("HX-Request"):
        return Response(status=204, headers={"HX-Redirect": path})
    return redirect(path, 303)


def require_login(app: Flask) -> Any:
    """Redirect everybody to the first-run page before setup, and anonymous visitors to the sign-in page."""
    response = _login_redirect(app)
    release_write_lock()  # The request's body is not read yet and may arrive slowly.
    return response


def _login_redirect(app: Flask) -> Any:
    if request.endpoint is None or request.endpoint in ENDPOINTS_BEFORE_SETUP:
        return None
    if current_organisation() is None:
        return redirect_to("/setup")
    if getattr(app.view_functions[request.endpoint], "is_public", False) or current_user.is_authenticated:
        return None
    next_url = request.full_path.rstrip("?") if request.method == "GET" else ""
    if request.headers.get("HX-Request"):
        next_url = urlsplit(request.headers.get("HX-Current-URL", "")).path
    if next_url in ("", "/"):
        return redirect_to("/sign-in")
    return redirect_to(f"/sign-in?next={quote(next_url, safe='/')}")


def init(app: Flask) -> None:
    login = LoginManager()
    login.session_protection = None  # Phones change networks; the session epoch ends sessions instead.
    login.user_loader(load_session_user)
    login.init_app(app)
    app.before_request(lambda: require_login(app))
    app.jinja_env.globals.update(may=may, current_user=current_user, current_organisation=current_organisation)
