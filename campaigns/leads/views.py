"""Views of leads: list, form, page, stage, owner, notes."""

from collections.abc import Callable
from typing import Any

from flask import Blueprint, flash, redirect, render_template, request, url_for
from flask_babel import gettext as _
from sqlalchemy import select
from sqlalchemy.orm import Session

from campaigns.accounts.actor import Permission
from campaigns.accounts.models import AuditLogEntry, User
from campaigns.audience.models import Contact
from campaigns.capture.models import Form, Submission
from campaigns.errors import Conflict, ValidationFailed
from campaigns.i18n import N_
from campaigns.leads import leads
from campaigns.leads.forms import LeadForm, NotesForm, OwnerForm, StageForm
from campaigns.leads.models import Lead, LeadStage
from campaigns.planning.activities import get_activity
from campaigns.planning.models import Activity, Campaign
from campaigns.web.i18n.formatting import translated
from campaigns.web.pages.error_pages import add_form_problems, error_text, problem_text
from campaigns.web.pages.pagination import paginate
from campaigns.web.request_session import db_session
from campaigns.web.security import idempotent_forms
from campaigns.web.security.current_actor import current_actor

blueprint = Blueprint("leads", __name__)

MAX_SHOWN = 100
"""Submissions and stage changes on a lead's page, newest first."""


@blueprint.get("/leads")
def index() -> Any:
    current_actor().require(Permission.PERSONAL)
    session = db_session()
    stage, campaign, owner = _stage_filter(), _int_argument("campaign"), _int_argument("owner")
    page = paginate(session, _leads_query(stage, campaign, owner), [Lead.id.desc()])
    return render_template(
        "pages/leads/leads.html",
        page=page,
        chosen={"stage": stage, "campaign": campaign, "owner": owner},
        filtered=bool(stage or campaign or owner),
        stages=list(LeadStage),
        campaigns=session.execute(
            select(Campaign.id, Campaign.name).where(~Campaign.built_in).order_by(Campaign.id.desc()).limit(500)
        ).all(),
        people=session.execute(select(User.id, User.name).order_by(User.name)).all(),
    )


def _leads_query(stage: str, campaign: int | None, owner: int | None) -> Any:
    stmt: Any = (
        select(
            Lead,
            Contact.email,
            Contact.first_name,
            Contact.last_name,
            Campaign.name.label("campaign"),
            Campaign.colour,
            Activity.title.label("activity"),
            Activity.channel,
            User.name.label("owner"),
        )
        .join(Contact, Contact.id == Lead.contact_id)
        .join(Campaign, Campaign.id == Lead.campaign_id)
        .join(Activity, Activity.id == Lead.activity_id)
        .outerjoin(User, User.id == Lead.owner_id)
    )
    if stage == "open":
        stmt = stmt.where(Lead.closed_at.is_(None))
    elif stage:
        stmt = stmt.where(Lead.stage == LeadStage(stage))
    if campaign is not None:
        stmt = stmt.where(Lead.campaign_id == campaign)
    if owner is not None:
        stmt = stmt.where(Lead.owner_id == owner)
    return stmt


def _stage_filter() -> str:
    stage = request.args.get("stage", "")
    return stage if stage == "open" or stage in set(LeadStage) else ""


def _int_argument(name: str) -> int | None:
    text = request.args.get(name, "")
    return int(text) if text.isascii() and text.isdigit() and len(text) < 16 else None


@blueprint.route("/leads/new", methods=["GET", "POST"])
def new() -> Any:
    """Enter a lead by hand, from an enquiry by message, comment or call."""
    actor = current_actor()
    actor.require(Permission.LEADS)
    session = db_session()
    activity_id = _int_argument("activity")
    form = LeadForm(data={"owner_id": str(actor.id), "activity_id": str(activity_id or "")})
    form.offer(session, activity_id)
    if form.validate_on_submit():
        if earlier_response := idempotent_forms.previous_result():
            return earlier_response
        try:
            activity = get_activity(session, int(form.activity_id.data))
            lead, is_new = leads.enter_lead(
                session,
                actor,
                campaign_id=activity.campaign_id,
                activity_id=activity.id,
                source=activity.channel.value,
                email=form.email.data or "",
                first_name=form.first_name.data or "",
                last_name=form.last_name.data or "",
                owner_id=int(form.owner_id.data) if form.owner_id.data else None,
                notes=form.notes.data or "",
            )
        except ValidationFailed as error:
            session.rollback()
            add_form_problems(form, error)
        else:
            known = _("This person has an open lead in the campaign already: your notes were added to it.")
            flash(_("The lead is written down.") if is_new else known, "success" if is_new else "info")
            return idempotent_forms.commit_and_redirect(url_for("leads.lead", lead_id=lead.id))
    page = render_template("pages/leads/lead_new.html", form=form)
    return page, 422 if form.errors or form.form_errors else 200


@blueprint.get("/leads/<int:lead_id>")
def lead(lead_id: int) -> Any:
    current_actor().require(Permission.PERSONAL)
    return _render_lead(db_session(), leads.lead_of(db_session(), lead_id))


def _render_lead(session: Session, found: Lead, notes_form: NotesForm | None = None) -> str:
    stage_form = StageForm(formdata=None, data={"stage": found.stage.value})
    stage_form.offer()
    owner_form = OwnerForm(formdata=None, data={"owner_id": str(found.owner_id or "")})
    owner_form.offer(session, found)
    changes = session.scalars(
        select(AuditLogEntry)
        .where(AuditLogEntry.subject_kind == "lead", AuditLogEntry.subject_id == str(found.id))
        .order_by(AuditLogEntry.id.desc())
        .limit(MAX_SHOWN)
    ).all()
    return render_template(
        "pages/leads/lead.html",
        lead=found,
        contact=session.get_one(Contact, found.contact_id),
        activity=session.get_one(Activity, found.activity_id),
        submissions=session.execute(
            select(Submission, Form.title, Form.fields)
            .join(Form, Form.id == Submission.form_id)
            .where(Submission.lead_id == found.id)
            .order_by(Submission.id.desc())
            .limit(MAX_SHOWN)
        ).all(),
        changes=changes,
        stages={stage.value: stage for stage in LeadStage},
        stage_form=stage_form,
        owner_form=owner_form,
        notes_form=notes_form or NotesForm(formdata=None, data={"notes": found.notes}),
    )


@blueprint.post("/leads/<int:lead_id>/stage")
def change_stage(lead_id: int) -> Any:
    current_actor().require(Permission.LEADS)
    session = db_session()
    found = leads.lead_of(session, lead_id)
    form = StageForm()
    form.offer()
    if not form.validate():
        flash(_("Please choose a stage."), "danger")
        return _redirect_to_lead(lead_id)
    stage = LeadStage(form.stage.data)
    return _run_action(
        lead_id, lambda: leads.change_stage(session, current_actor(), found, stage), N_("The stage is changed.")
    )


@blueprint.post("/leads/<int:lead_id>/owner")
def assign(lead_id: int) -> Any:
    current_actor().require(Permission.LEADS)
    session = db_session()
    found = leads.lead_of(session, lead_id)
    form = OwnerForm()
    form.offer(session, found)
    if not form.validate():
        flash(_("Please choose an owner."), "danger")
        return _redirect_to_lead(lead_id)
    owner_id = int(form.owner_id.data) if form.owner_id.data else None
    return _run_action(
        lead_id, lambda: leads.assign_owner(session, current_actor(), found, owner_id), N_("The lead is handed over.")
    )


@blueprint.post("/leads/<int:lead_id>/notes")
def note(lead_id: int) -> Any:
    actor = current_actor()
    actor.require(Permission.PERSONAL)
    session = db_session()
    found = leads.lead_of(session, lead_id)
    form = NotesForm()
    try:
        leads.set_notes(session, actor, found, form.notes.data or "")
    except ValidationFailed as error:
        add_form_problems(form, error)
        return _render_lead(session, found, form), 422
    session.commit()
    flash(_("The notes are saved."), "success")
    return _redirect_to_lead(lead_id)


def _run_action(lead_id: int, action: Callable[[], None], success_message: str) -> Any:
    session = db_session()
    try:
        action()
    except Conflict as error:
        session.rollback()
        flash(error_text(error), "warning")
    except ValidationFailed as error:
        session.rollback()
        flash(" ".join(map(problem_text, error.problems)), "danger")
    else:
        session.commit()
        flash(translated(success_message), "success")
    return _redirect_to_lead(lead_id)


def _redirect_to_lead(lead_id: int) -> Any:
    return redirect(url_for("leads.lead", lead_id=lead_id), 303)
