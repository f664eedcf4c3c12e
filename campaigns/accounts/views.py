"""Pages of account administration: the user's profile, users, settings, the audit log."""

from typing import Any

from flask import Blueprint, flash, redirect, render_template, request
from flask_babel import gettext as _
from flask_login import current_user, login_user
from sqlalchemy import select

from campaigns.accounts import audit_log_view, users
from campaigns.accounts.actor import Permission
from campaigns.accounts.forms import OrganisationForm, PasswordForm, ProfileForm, UserForm
from campaigns.accounts.models import AuditLogEntry, Role, User
from campaigns.accounts.organisation import organisation, update_organisation
from campaigns.delivery.sends import send_windows
from campaigns.errors import Conflict, ValidationFailed, ValidationProblem
from campaigns.i18n import N_
from campaigns.optimistic_lock import EditConflict
from campaigns.web.pages.edit_conflicts import clash
from campaigns.web.pages.error_pages import put_problems, say
from campaigns.web.pages.pagination import page_of
from campaigns.web.request_session import db_session
from campaigns.web.security.authentication import SessionUser, safe_next
from campaigns.web.security.current_actor import actor

blueprint = Blueprint("accounts", __name__)


@blueprint.route("/me", methods=["GET", "POST"])
def me() -> Any:
    person = current_user.person
    form = ProfileForm(obj=person).offer()
    if form.validate_on_submit():
        try:
            users.update_me(
                db_session(),
                actor(),
                name=form.name.data or "",
                language=form.language.data,
                timezone=form.timezone.data,
            )
            db_session().commit()
        except ValidationFailed as error:
            put_problems(form, error)
        else:
            flash(_("Your account is saved."), "success")
            return redirect("/me", 303)
    return _me_page(form, PasswordForm())


def _me_page(form: ProfileForm, password_form: PasswordForm) -> Any:
    wrong = form.errors or password_form.errors
    page = render_template("pages/accounts/me.html", form=form, password_form=password_form)
    return page, 400 if wrong else 200


@blueprint.post("/me/password")
def change_password() -> Any:
    form = PasswordForm()
    if form.validate_on_submit():
        try:
            person = users.change_password(
                db_session(), actor(), current=form.current.data or "", password=form.password.data or ""
            )
            db_session().commit()
        except ValidationFailed as error:
            put_problems(form, error)
        else:
            login_user(SessionUser(person))  # Keeps this session valid; the raised epoch ended the others.
            flash(_("Your new password is set. Other sessions were ended."), "success")
            return redirect("/me", 303)
    return _me_page(ProfileForm(formdata=None, obj=current_user.person).offer(), form)


@blueprint.post("/me/language")
def choose_language() -> Any:
    users.choose_language(db_session(), actor(), request.form.get("language", ""))
    db_session().commit()
    return redirect(safe_next(request.form.get("next")), 303)


@blueprint.get("/people")
def everybody() -> Any:
    actor().require(Permission.PEOPLE)
    page = page_of(db_session(), select(User), [User.name, User.id])
    return render_template("pages/accounts/people.html", page=page, roles=list(Role))


@blueprint.route("/people/new", methods=["GET", "POST"])
def add_person() -> Any:
    actor().require(Permission.PEOPLE)
    form = UserForm().offer()
    if form.validate_on_submit():
        try:
            person = users.add_person(
                db_session(),
                actor(),
                email=form.email.data or "",
                name=form.name.data or "",
                role=Role(form.role.data),
                password=form.password.data or "",
            )
            db_session().commit()
        except ValidationFailed as error:
            put_problems(form, error)
        else:
            flash(_("%(name)s can sign in now.", name=person.name), "success")
            return redirect("/people", 303)
    return render_template("pages/accounts/person_new.html", form=form), 400 if form.errors else 200


@blueprint.post("/people/<int:person_id>/role")
def change_role(person_id: int) -> Any:
    actor().require(Permission.PEOPLE)
    try:
        role = Role(request.form.get("role", ""))
    except ValueError:
        raise ValidationFailed(ValidationProblem(N_("This role does not exist."), field="role")) from None
    return _changed(lambda: users.change_role(db_session(), actor(), person_id, role))


@blueprint.post("/people/<int:person_id>/lock")
def lock(person_id: int) -> Any:
    return _changed(lambda: users.lock(db_session(), actor(), person_id))


@blueprint.post("/people/<int:person_id>/unlock")
def unlock(person_id: int) -> Any:
    return _changed(lambda: users.unlock(db_session(), actor(), person_id))


def _changed(verb: Any) -> Any:
    """Apply a change to a user; a Conflict is flashed on the user list, which shows the current state."""
    try:
        person = verb()
        db_session().commit()
    except Conflict as error:
        flash(say(error), "danger")
    else:
        flash(_("%(name)s was changed.", name=person.name), "success")
    return redirect("/people", 303)


@blueprint.route("/settings", methods=["GET", "POST"])
def settings() -> Any:
    actor().require(Permission.SETTINGS)
    ours = organisation(db_session())
    form = OrganisationForm(obj=ours)
    if request.method == "GET":
        form.own_hosts.data = "\n".join(ours.own_hosts)
    if form.validate_on_submit():
        values: dict[str, Any] = {
            name: field.data if name.startswith(("quiet_", "cap_")) else field.data or ""
            for name, field in form._fields.items()
            if name not in ("csrf_token", "revision")
        }
        values["own_hosts"] = values["own_hosts"].replace(",", " ").split()
        hours = ours.quiet_from, ours.quiet_until, ours.timezone
        try:
            update_organisation(db_session(), actor(), revision=form.seen(ours), **values)
            db_session().commit()
            changed = (ours.quiet_from, ours.quiet_until, ours.timezone) != hours
            while changed:
                changed = send_windows.ask_anew(db_session())
                db_session().commit()
        except ValidationFailed as error:
            put_problems(form, error)
        except EditConflict:
            db_session().rollback()
            db_session().refresh(ours)
            saved = OrganisationForm(formdata=None, obj=ours)
            saved.own_hosts.data = "\n".join(ours.own_hosts)
            page = render_template("pages/accounts/settings.html", form=form, clash=clash(form, saved, ours))
            return page, 409
        else:
            flash(_("The settings are saved."), "success")
            return redirect("/settings", 303)
    return render_template("pages/accounts/settings.html", form=form, clash=None), 400 if form.errors else 200


@blueprint.get("/audit")
def audit_trail() -> Any:
    actor().require(Permission.SETTINGS)
    page = page_of(db_session(), select(AuditLogEntry), [AuditLogEntry.id.desc()])
    return render_template("pages/accounts/audit.html", page=page, trail=audit_log_view)
