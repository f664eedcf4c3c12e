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
from campaigns.accounts.organisation import create_organisation
from campaigns.accounts.users import set_password
from campaigns.errors import InvalidTokenError, NotFound, RateLimited, ValidationFailed
from campaigns.i18n import N_
from campaigns.web import health as health_checks
from campaigns.web.client_ip import client_ip, network_of
from campaigns.web.pages.error_pages import add_form_problems, error_text
from campaigns.web.request_session import db_session
from campaigns.web.security.authentication import SessionUser, current_organisation, safe_next
from campaigns.web.security.current_actor import public

blueprint = Blueprint("accounts_public", __name__)
_DEVICE_COOKIE = "kampania_device"
_YEAR = 365 * 24 * 3600


def start_session(person: User) -> None:
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
            owner = create_organisation(db_session(), **values)
            db_session().commit()
        except ValidationFailed as error:
            add_form_problems(form, error)
        else:
            g.pop("organisation", None)
            start_session(owner)
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
            person = _authenticate(form.email.data or "", form.password.data or "")
        except RateLimited as error:
            form.form_errors.append(error_text(error))
            return _sign_in_page(form, target, 429, {"Retry-After": str(error.retry_after)})
        if person is not None:
            start_session(person)
            answer = redirect(target, 303)
            answer.set_cookie(
                _DEVICE_COOKIE,
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
    return render_template("pages/accounts/login.html", form=form, target=target), status, more or {}


def _authenticate(email: str, password: str) -> User | None:
    """The user with this address and password; None when they don't match. Raises RateLimited.

    Works in three short transactions: hashing is slow on purpose, and the database must not stay locked meanwhile.
    """
    keys = authentication.LoginRateLimitKeys.for_attempt(
        email, network_of(client_ip(request.environ)), request.cookies.get(_DEVICE_COOKIE, "")
    )
    db_transaction = db_session()
    try:
        authentication.count_attempt(db_transaction, keys)
    finally:
        db_transaction.commit()
    person, stored_hash = authentication.user_and_hash(db_transaction, email)
    db_transaction.commit()
    if not passwords.verify_password(stored_hash, password) or person is None:
        return None
    authentication.record_login(db_transaction, person, keys, password)
    db_transaction.commit()
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
        authentication.request_password_reset(
            db_session(), form.email.data or "", network_of(client_ip(request.environ))
        )
        db_session().commit()
        return render_template("pages/accounts/forgot_password_sent.html")
    return render_template("pages/accounts/forgot_password.html", form=form), 400 if form.errors else 200


@blueprint.route("/password/reset/<token>", methods=["GET", "POST"])
@public
def reset(token: str) -> Any:
    g.referrer_policy = "same-origin"  # The URL holds the token: no other site may receive it as a referrer.
    try:
        person = authentication.user_of_reset_token(db_session(), token)
    except InvalidTokenError as error:
        return render_template("pages/accounts/reset_password_refused.html", words=error_text(error)), 400
    form = ResetPasswordForm()
    if form.validate_on_submit():
        try:
            set_password(db_session(), Actor.of_user(person), person, form.password.data or "")
            db_session().commit()
        except ValidationFailed as error:
            add_form_problems(form, error)
        else:
            start_session(person)
            flash(_("Your new password is set. Other sessions were ended."), "success")
            return redirect("/", 303)
    return render_template("pages/accounts/reset_password.html", form=form, person=person), 400 if form.errors else 200


@blueprint.get("/health")
@public
def health() -> tuple[Response, int]:
    """Health of the installation for monitoring and load balancers: 200, or 503 with the failing checks."""
    try:
        is_healthy, checks = health_checks.run_checks(db_session())
    except SQLAlchemyError:
        is_healthy, checks = False, {"database": {"ok": False}}
    return jsonify({"status": "ok" if is_healthy else "failing", "checks": checks}), 200 if is_healthy else 503
