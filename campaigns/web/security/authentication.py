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
from campaigns.web.request_session import db_session, let_others_write

BEFORE_FOUNDING = frozenset({"static", "favicon", "accounts_public.setup", "accounts_public.health"})


class SessionUser(UserMixin):  # type: ignore[misc]
    """The user of this session, as Flask-Login requires it."""

    def __init__(self, person: User) -> None:
        self.person = person

    def get_id(self) -> str:
        return f"{self.person.id}.{self.person.session_epoch}"


def load(key: str) -> SessionUser | None:
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
    found: Organisation | None = g.organisation
    return found


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


def to(path: str) -> Any:
    """Redirect the browser, also from within an htmx request."""
    if request.headers.get("HX-Request"):
        return Response(status=204, headers={"HX-Redirect": path})
    return redirect(path, 303)


def guard(app: Flask) -> Any:
    """Redirect everybody to the first-run page before setup, and anonymous visitors to the sign-in page."""
    answer = _refusal(app)
    let_others_write()  # The request's body is not read yet and may arrive slowly.
    return answer


def _refusal(app: Flask) -> Any:
    if request.endpoint is None or request.endpoint in BEFORE_FOUNDING:
        return None
    if current_organisation() is None:
        return to("/setup")
    if getattr(app.view_functions[request.endpoint], "is_public", False) or current_user.is_authenticated:
        return None
    wanted = request.full_path.rstrip("?") if request.method == "GET" else ""
    if request.headers.get("HX-Request"):
        wanted = urlsplit(request.headers.get("HX-Current-URL", "")).path
    if wanted in ("", "/"):
        return to("/sign-in")
    return to(f"/sign-in?next={quote(wanted, safe='/')}")


def init(app: Flask) -> None:
    login = LoginManager()
    login.session_protection = None  # Phones change networks; the session epoch ends sessions instead.
    login.user_loader(load)
    login.init_app(app)
    app.before_request(lambda: guard(app))
    app.jinja_env.globals.update(may=may, current_user=current_user, current_organisation=current_organisation)
