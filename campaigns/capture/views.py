"""Views that edit and preview an activity's landing page."""

from typing import Any

from flask import Blueprint, flash, g, make_response, render_template, url_for
from flask_babel import gettext as _
from sqlalchemy.orm import Session

from campaigns import config
from campaigns.accounts.actor import Permission
from campaigns.capture import form_editing
from campaigns.capture.forms import LandingPageForm, form_values
from campaigns.capture.languages import text_direction
from campaigns.capture.models import Form
from campaigns.errors import NotFound, ValidationFailed
from campaigns.i18n import N_
from campaigns.optimistic_lock import EditConflict
from campaigns.planning.activities import get_activity
from campaigns.planning.models import Activity
from campaigns.web.pages.edit_conflicts import EditConflictView, edit_conflict_view
from campaigns.web.pages.error_pages import add_form_problems
from campaigns.web.request_session import db_session
from campaigns.web.security import idempotent_forms
from campaigns.web.security.authentication import current_organisation
from campaigns.web.security.current_actor import current_actor
from campaigns.web.security.security_headers import override_csp

blueprint = Blueprint("capture", __name__)


@blueprint.route("/activities/<int:activity_id>/form", methods=["GET", "POST"])
def edit(activity_id: int) -> Any:
    actor = current_actor()
    actor.require(Permission.PLAN)
    session = db_session()
    activity = get_activity(session, activity_id)
    existing = form_editing.form_of(session, activity_id)
    form = LandingPageForm(data=form_values(existing) if existing else _default_values(activity))
    form.offer(session)
    conflict = None
    if form.validate_on_submit():
        if earlier_response := idempotent_forms.previous_result():
            return earlier_response
        try:
            if existing is None:
                form_editing.create_form(
                    session, actor, campaign_id=activity.campaign_id, activity_id=activity_id, **form.filled()
                )
            else:
                form_editing.update_form(
                    session, actor, existing, revision=form.opened_revision(existing), **form.filled()
                )
        except ValidationFailed as error:
            add_form_problems(form, error)
        except EditConflict:
            session.rollback()
            session.refresh(existing)
            conflict = _edit_conflict(session, form, existing)
        else:
            flash(_("The landing page is saved."), "success")
            return idempotent_forms.commit_and_redirect(url_for("capture.edit", activity_id=activity_id))
    has_errors = bool(form.errors) or bool(form.form_errors)
    page = render_template(
        "pages/capture/form_editor.html",
        form=form,
        activity=activity,
        landing_page=existing,
        conflict=conflict,
        url=f"{config.settings().base_url}/f/{existing.slug}" if existing else "",
    )
    return page, 409 if conflict else 422 if has_errors else 200


def _edit_conflict(session: Session, form: LandingPageForm, existing: Form | None) -> EditConflictView | None:
    if existing is None:
        return None
    saved = LandingPageForm(formdata=None, data=form_values(existing))
    saved.offer(session)
    return edit_conflict_view(form, saved, existing)


def _default_values(activity: Activity) -> dict[str, Any]:
    organisation = current_organisation()
    return {
        "title": activity.title,
        "button": _("Send"),
        "thanks": _("Thank you. We will write to you soon."),
        "consent_wording": _("Yes, write to me about news by e-mail. I can stop this at any time."),
        "language": organisation.language if organisation else "en",
        "open": True,
        "questions": [
            {"kind": "first_name", "label": _("First name")},
            {"kind": "last_name", "label": _("Last name")},
        ],
    }


@blueprint.get("/activities/<int:activity_id>/form/preview")
def preview(activity_id: int) -> Any:
    """The page as visitors see it, without tracking and with a disabled form."""
    current_actor().require(Permission.VIEW)
    session = db_session()
    get_activity(session, activity_id)
    form = form_editing.form_of(session, activity_id)
    if form is None:
        raise NotFound(N_("There is no such page."))
    g.language = form.language
    override_csp(frame_ancestors="'self'")
    return make_response(
        render_template(
            "public/form.html",
            form=form,
            embedded=False,
            preview=True,
            text_direction=text_direction(form.language),
            questions=form_editing.questions_of(form),
            typed={},
            at_fields={},
            others=[],
            external_id="",
            token="",
        )
    )
