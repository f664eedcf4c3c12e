"""Views for visitors who are not signed in: first run, sign-in, password reset, health."""

from typing import Any

from flask import Blueprint, Response, flash, g, jsonify, redirect, render_template, request, session
from flask_babel import gettext as _
from flask_login import current_user, login_user, logout_user
from sqlalchemy.exc import SQLAlchemyError

from campaigns import config
from campaigns.accounts import authentication, passwords
from campaigns.accounts.actor import Actor
from campaigns.accounts.forms import ForgotPasswordForm, LoginForm, ResetPasswordForm, SetupForm
from campaigns.accounts.models import User
from campaigns.accounts.organisation import found
from campaigns.accounts.users import set_password
from campaigns.errors import BadToken, NotFound, RateLimited, ValidationFailed
from campaigns.i18n import N_
from campaigns.web import health as health_checks
from campaigns.web.client_ip import client_ip, network_of
from campaigns.web.pages.error_pages import put_problems, say
from campaigns.web.request_session import db_session
from campaigns.web.security.authentication import SessionUser, current_organisation, safe_next
from campaigns.web.security.current_actor import public

blueprint = Blueprint("accounts_public", __name__)
_DEVICE = "kampania_device"
_YEAR = 365 * 24 * 3600


def enter(person: User) -> None:
    """Start a new session for the user; nothing of the anonymous session is kept."""
    session.clear()
    login_user(SessionUser(person))


@blueprint.route("/setup", methods=["GET", "POST"])
@public
def setup() -> Any:
    """First-run page; 404 once there is an organisation."""
    if current_organisation() is not None:
        raise NotFound(N_("This installation has been set up already. Please sign in."))
    form = SetupForm()
    if form.validate_on_submit():
        values = {name: field.data or "" for name, field in form._fields.items() if name != "csrf_token"}
        try:
            owner = found(db_session(), **values)
            db_session().commit()
        except ValidationFailed as error:
            put_problems(form, error)
        else:
            g.pop("organisation", None)
            enter(owner)
            flash(_("Welcome. Everything is ready."), "success")
            return redirect("/", 303)
    return render_template("pages/accounts/setup.html", form=form), 400 if form.errors else 200


@blueprint.route("/sign-in", methods=["GET", "POST"])
@public
def sign_in() -> Any:
    target = safe_next(request.values.get("next"))
    if current_user.is_authenticated:
        return redirect(target, 303)
    form = LoginForm()
    if form.validate_on_submit():
        try:
            person = _recognised(form.email.data or "", form.password.data or "")
        except RateLimited as error:
            form.form_errors.append(say(error))
            return _sign_in_page(form, target, 429, {"Retry-After": str(error.wait)})
        if person is not None:
            enter(person)
            answer = redirect(target, 303)
            answer.set_cookie(
                _DEVICE,
                authentication.device_token(person),
                max_age=_YEAR,
                httponly=True,
                samesite="Lax",
                secure=config.settings().secure,
            )
            return answer
        form.form_errors.append(_("This address and password do not belong together."))
    return _sign_in_page(form, target, 400 if form.errors else 200)


def _sign_in_page(form: LoginForm, target: str, status: int, more: dict[str, str] | None = None) -> Any:
    return render_template("pages/accounts/sign_in.html", form=form, target=target), status, more or {}


def _recognised(email: str, password: str) -> User | None:
    """The user with this address and password; None when they don't match. Raises RateLimited.

    Works in three short transactions: hashing is slow on purpose, and the database must not stay locked meanwhile.
    """
    door = authentication.LoginRateLimitKeys.of(
        email, network_of(client_ip(request.environ)), request.cookies.get(_DEVICE, "")
    )
    rows = db_session()
    try:
        authentication.knock(rows, door)
    finally:
        rows.commit()
    person, kept = authentication.who(rows, email)
    rows.commit()
    if not passwords.matches(kept, password) or person is None:
        return None
    authentication.welcome(rows, person, door, password)
    rows.commit()
    return person


@blueprint.post("/sign-out")
@public
def sign_out() -> Any:
    logout_user()
    session.clear()
    flash(_("You are signed out."), "success")
    return redirect("/sign-in", 303)


@blueprint.route("/password/forgot", methods=["GET", "POST"])
@public
def forgot() -> Any:
    form = ForgotPasswordForm()
    if form.validate_on_submit():
        authentication.ask_reset(db_session(), form.email.data or "", network_of(client_ip(request.environ)))
        db_session().commit()
        return render_template("pages/accounts/forgot_sent.html")
    return render_template("pages/accounts/forgot.html", form=form), 400 if form.errors else 200


@blueprint.route("/password/reset/<token>", methods=["GET", "POST"])
@public
def reset(token: str) -> Any:
    g.referrer_policy = "same-origin"  # The URL holds the token: no other site may receive it as a referrer.
    try:
        person = authentication.whose_reset(db_session(), token)
    except BadToken as error:
        return render_template("pages/accounts/reset_refused.html", words=say(error)), 400
    form = ResetPasswordForm()
    if form.validate_on_submit():
        try:
            set_password(db_session(), Actor.of(person), person, form.password.data or "")
            db_session().commit()
        except ValidationFailed as error:
            put_problems(form, error)
        else:
            enter(person)
            flash(_("Your new password is set. Other sessions were ended."), "success")
            return redirect("/", 303)
    return render_template("pages/accounts/reset.html", form=form, person=person), 400 if form.errors else 200


@blueprint.get("/health")
@public
def health() -> tuple[Response, int]:
    """Health of the installation for monitoring and load balancers: 200, or 503 with the failing checks."""
    try:
        well, facts = health_checks.report(db_session())
    except SQLAlchemyError:
        well, facts = False, {"database": {"ok": False}}
    return jsonify({"status": "ok" if well else "failing", "checks": facts}), 200 if well else 503
