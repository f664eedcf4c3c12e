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
from campaigns.web.pages.edit_conflicts import edit_conflict_view
from campaigns.web.pages.error_pages import add_form_problems, error_text
from campaigns.web.pages.pagination import paginate
from campaigns.web.request_session import db_session
from campaigns.web.security.authentication import SessionUser, safe_next
from campaigns.web.security.current_actor import current_actor

blueprint = Blueprint("accounts", __name__)


@blueprint.route("/me", methods=["GET", "POST"])
def me() -> Any:
    person = current_user.person
    form = ProfileForm(obj=person).fill_choices()
    if form.validate_on_submit():
        try:
            users.update_profile(
                db_session(),
                current_actor(),
                name=form.name.data or "",
                language=form.language.data,
                timezone=form.timezone.data,
            )
            db_session().commit()
        except ValidationFailed as error:
            add_form_problems(form, error)
        else:
            flash(_("Your account is saved."), "success")
            return redirect("/me", 303)
    return _profile_page(form, PasswordForm())


def _profile_page(form: ProfileForm, password_form: PasswordForm) -> Any:
    has_errors = form.errors or password_form.errors
    page = render_template("pages/accounts/profile.html", form=form, password_form=password_form)
    return page, 400 if has_errors else 200


@blueprint.post("/me/password")
def change_password() -> Any:
    form = PasswordForm()
    if form.validate_on_submit():
        try:
            person = users.change_password(
                db_session(), current_actor(), current=form.current.data or "", password=form.password.data or ""
            )
            db_session().commit()
        except ValidationFailed as error:
            add_form_problems(form, error)
        else:
            login_user(SessionUser(person))  # Keeps this session valid; the raised epoch ended the others.
            flash(_("Your new password is set. Other sessions were ended."), "success")
            return redirect("/me", 303)
    return _profile_page(ProfileForm(formdata=None, obj=current_user.person).fill_choices(), form)


@blueprint.post("/me/language")
def choose_language() -> Any:
    users.set_language(db_session(), current_actor(), request.form.get("language", ""))
    db_session().commit()
    return redirect(safe_next(request.form.get("next")), 303)


@blueprint.get("/people")
def everybody() -> Any:
    current_actor().require(Permission.PEOPLE)
    page = paginate(db_session(), select(User), [User.name, User.id])
    return render_template("pages/accounts/users.html", page=page, roles=list(Role))


@blueprint.route("/people/new", methods=["GET", "POST"])
def add_person() -> Any:
    current_actor().require(Permission.PEOPLE)
    form = UserForm().fill_choices()
    if form.validate_on_submit():
        try:
            person = users.add_user(
                db_session(),
                current_actor(),
                email=form.email.data or "",
                name=form.name.data or "",
                role=Role(form.role.data),
                password=form.password.data or "",
            )
            db_session().commit()
        except ValidationFailed as error:
            add_form_problems(form, error)
        else:
            flash(_("%(name)s can sign in now.", name=person.name), "success")
            return redirect("/people", 303)
    return render_template("pages/accounts/user_new.html", form=form), 400 if form.errors else 200


@blueprint.post("/people/<int:person_id>/role")
def change_role(person_id: int) -> Any:
    current_actor().require(Permission.PEOPLE)
    try:
        role = Role(request.form.get("role", ""))
    except ValueError:
        raise ValidationFailed(ValidationProblem(N_("This role does not exist."), field="role")) from None
    return _apply_change(lambda: users.change_role(db_session(), current_actor(), person_id, role))


@blueprint.post("/people/<int:person_id>/lock")
def lock(person_id: int) -> Any:
    return _apply_change(lambda: users.lock(db_session(), current_actor(), person_id))


@blueprint.post("/people/<int:person_id>/unlock")
def unlock(person_id: int) -> Any:
    return _apply_change(lambda: users.unlock(db_session(), current_actor(), person_id))


def _apply_change(change: Any) -> Any:
    """Apply a change to a user; a Conflict is flashed on the user list, which shows the current state."""
    try:
        person = change()
        db_session().commit()
    except Conflict as error:
        flash(error_text(error), "danger")
    else:
        flash(_("%(name)s was changed.", name=person.name), "success")
    return redirect("/people", 303)


@blueprint.route("/settings", methods=["GET", "POST"])
def settings() -> Any:
    current_actor().require(Permission.SETTINGS)
    current = organisation(db_session())
    form = OrganisationForm(obj=current)
    if request.method == "GET":
        form.own_hosts.data = "\n".join(current.own_hosts)
    if form.validate_on_submit():
        values: dict[str, Any] = {
            name: field.data if name.startswith(("quiet_", "cap_")) else field.data or ""
            for name, field in form._fields.items()
            if name not in ("csrf_token", "revision")
        }
        values["own_hosts"] = values["own_hosts"].replace(",", " ").split()
        quiet_hours_before = current.quiet_from, current.quiet_until, current.timezone
        try:
            update_organisation(db_session(), current_actor(), revision=form.opened_revision(current), **values)
            db_session().commit()
            changed = (current.quiet_from, current.quiet_until, current.timezone) != quiet_hours_before
            while changed:
                changed = send_windows.requeue_waiting(db_session())
                db_session().commit()
        except ValidationFailed as error:
            add_form_problems(form, error)
        except EditConflict:
            db_session().rollback()
            db_session().refresh(current)
            saved = OrganisationForm(formdata=None, obj=current)
            saved.own_hosts.data = "\n".join(current.own_hosts)
            page = render_template(
                "pages/accounts/settings.html", form=form, conflict=edit_conflict_view(form, saved, current)
            )
            return page, 409
        else:
            flash(_("The settings are saved."), "success")
            return redirect("/settings", 303)
    return render_template("pages/accounts/settings.html", form=form, conflict=None), 400 if form.errors else 200


@blueprint.get("/audit")
def audit_trail() -> Any:
    current_actor().require(Permission.SETTINGS)
    page = paginate(db_session(), select(AuditLogEntry), [AuditLogEntry.id.desc()])
    return render_template("pages/accounts/audit_log.html", page=page, trail=audit_log_view)
