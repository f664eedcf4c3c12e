"""Views of campaigns and activities: pages, forms and transition buttons."""

from collections.abc import Callable, Sequence
from decimal import Decimal
from typing import Any
from urllib.parse import urlsplit

from flask import Blueprint, flash, redirect, render_template, request, url_for
from flask_babel import gettext as _
from sqlalchemy import func, select
from sqlalchemy.orm import Session

from campaigns import clock, db
from campaigns.accounts import audit_log_view
from campaigns.accounts.actor import Actor, Permission
from campaigns.accounts.models import AuditLogEntry, User
from campaigns.audience.models import ContactList
from campaigns.capture import form_editing
from campaigns.content import versions
from campaigns.content.models import Message, MessageVersion
from campaigns.errors import Conflict, ValidationFailed
from campaigns.i18n import N_
from campaigns.optimistic_lock import EditConflict
from campaigns.planning import activities, campaigns, launch, recipients
from campaigns.planning.forms import (
    COLOURS,
    URL_LABELS,
    CampaignForm,
    LaunchForm,
    build_activity_form,
    campaign_values,
)
from campaigns.planning.models import Activity, ActivityStatus, Campaign, Channel
from campaigns.planning.state_machine import LAUNCHED_STATUSES, LaunchConflict, Transition, available_transitions
from campaigns.planning.views import links
from campaigns.web.i18n.formatting import translated
from campaigns.web.pages.edit_conflicts import edit_conflict_view
from campaigns.web.pages.error_pages import add_form_problems, error_text, problem_text
from campaigns.web.request_session import db_session
from campaigns.web.security import idempotent_forms
from campaigns.web.security.current_actor import current_actor

blueprint = Blueprint("planning", __name__)
blueprint.register_blueprint(links.blueprint)

CAMPAIGN_ACTIONS: dict[str, tuple[Callable[[Session, Actor, Campaign], None], str]] = {
    "launch": (campaigns.launch_campaign, N_("The campaign is active.")),
    "pause": (campaigns.pause_campaign, N_("The campaign and everything in it that ran is paused.")),
    "resume": (campaigns.resume_campaign, N_("The campaign goes on.")),
    "finish": (campaigns.finish_campaign, N_("The campaign is finished.")),
    "cancel": (campaigns.cancel_campaign, N_("The campaign is cancelled.")),
}
ACTIVITY_ACTIONS: dict[str, tuple[Callable[[Session, Actor, Activity], None], str]] = {
    "submit": (activities.submit, N_("Submitted for review.")),
    "approve": (activities.approve, N_("Approved.")),
    "reopen": (activities.reopen, N_("Back to draft.")),
    "pause": (launch.pause, N_("Paused.")),
    "resume": (launch.resume, N_("It goes on.")),
    "finish": (launch.finish, N_("Finished.")),
    "cancel": (launch.cancel, N_("Cancelled.")),
}


@blueprint.route("/campaigns/new", methods=["GET", "POST"])
def new_campaign() -> Any:
    actor = current_actor()
    actor.require(Permission.PLAN)
    session = db_session()
    form = CampaignForm(data={"owner_id": str(actor.id), "colour": _next_colour(session), "objective": "leads"})
    form.fill_choices(session, None)
    if form.validate_on_submit():
        if earlier_response := idempotent_forms.previous_result():
            return earlier_response
        try:
            campaign = campaigns.create_campaign(session, actor, **form.to_input())
        except ValidationFailed as error:
            add_form_problems(form, error)
        else:
            flash(_("“%(name)s” is planned. Now add its activities.", name=campaign.name), "success")
            return idempotent_forms.commit_and_redirect(url_for("planning.campaign", campaign_id=campaign.id))
    return _render_form("campaign_form", form, campaign=None)


def _next_colour(session: Session) -> str:
    return COLOURS[(session.scalar(select(func.max(Campaign.id))) or 0) % len(COLOURS)]


def _render_form(page: str, form: Any, **context: Any) -> Any:
    """Render a page with a form. The status is 409 for an edit conflict, 422 for a form with errors, else 200."""
    has_errors = bool(form.errors) or bool(form.form_errors)
    status = 409 if context.setdefault("conflict", None) else 422 if has_errors else 200
    return render_template(f"pages/planning/{page}.html", form=form, **context), status


@blueprint.route("/campaigns/<int:campaign_id>/edit", methods=["GET", "POST"])
def edit_campaign(campaign_id: int) -> Any:
    actor = current_actor()
    actor.require(Permission.PLAN)
    session = db_session()
    campaign = campaigns.get_campaign(session, campaign_id)
    form = CampaignForm(data=campaign_values(campaign))
    form.fill_choices(session, campaign)
    if form.validate_on_submit():
        try:
            campaigns.update_campaign(
                session, actor, campaign, revision=form.opened_revision(campaign), **form.to_input()
            )
        except ValidationFailed as error:
            add_form_problems(form, error)
        except EditConflict:
            session.rollback()
            session.refresh(campaign)
            saved = CampaignForm(formdata=None, data=campaign_values(campaign))
            saved.fill_choices(session, campaign)
            return _render_form(
                "campaign_form", form, campaign=campaign, conflict=edit_conflict_view(form, saved, campaign)
            )
        else:
            session.commit()
            flash(_("Saved."), "success")
            return redirect(url_for("planning.campaign", campaign_id=campaign_id), 303)
    return _render_form("campaign_form", form, campaign=campaign)


@blueprint.get("/campaigns/<int:campaign_id>")
def campaign(campaign_id: int) -> Any:
    actor = current_actor()
    actor.require(Permission.VIEW)
    session = db_session()
    campaign = campaigns.get_campaign(session, campaign_id)
    rows = session.execute(
        select(Activity, User.name.label("owner"))
        .outerjoin(User, User.id == Activity.owner_id)
        .where(Activity.campaign_id == campaign_id)
        .order_by(Activity.starts_on.is_(None), Activity.starts_on, Activity.id)
    ).all()
    groups = {channel: [row for row in rows if row.Activity.channel is channel] for channel in Channel}
    counted = [row.Activity for row in rows if row.Activity.status is not ActivityStatus.CANCELLED]
    return render_template(
        "pages/planning/campaign.html",
        campaign=campaign,
        owner=session.get(User, campaign.owner_id) if campaign.owner_id is not None else None,
        groups={channel: some for channel, some in groups.items() if some},
        coverage={channel: sum(one.channel is channel for one in counted) for channel in Channel},
        planned_cost=sum((one.cost for one in counted if one.cost is not None), Decimal(0)),
        activities=len(rows),
        verbs=_permitted_transitions(actor, campaign),
        trail=audit_log_view,
        history=_history(actor, ("campaign", [campaign.id]), ("activity", [row.Activity.id for row in rows])),
    )


def _history(actor: Actor, *subjects: tuple[str, Sequence[int]]) -> Sequence[AuditLogEntry]:
    return audit_log_view.history(db_session(), actor, *subjects) if actor.may(Permission.PLAN) else []


def _permitted_transitions(actor: Actor, row: Campaign | Activity) -> list[Transition]:
    """The transitions that are possible now and that the actor is permitted to apply."""
    planner_transitions = {Transition.SUBMIT, Transition.REOPEN}
    return [
        verb
        for verb in available_transitions(row)
        if actor.may(Permission.PLAN if verb in planner_transitions else Permission.LAUNCH)
    ]


@blueprint.post("/campaigns/<int:campaign_id>/<any(launch,pause,resume,finish,cancel):verb>")
def move_campaign(campaign_id: int, verb: str) -> Any:
    session = db_session()
    campaign = campaigns.get_campaign(session, campaign_id)
    act, success_message = CAMPAIGN_ACTIONS[verb]
    _run_transition(session, lambda: act(session, current_actor(), campaign), success_message)
    return redirect(url_for("planning.campaign", campaign_id=campaign_id), 303)


def _run_transition(session: Session, act: Callable[[], None], success_message: str) -> None:
    """Run a transition, commit, and flash the result. A Conflict or failed validation is flashed instead of raised."""
    try:
        act()
    except LaunchConflict as error:
        session.rollback()
        flash(error_text(error), "info")
    except Conflict as error:
        session.rollback()
        flash(error_text(error), "warning")
    except ValidationFailed as error:
        session.rollback()
        flash(" ".join(map(problem_text, error.problems)), "danger")
    else:
        session.commit()
        flash(translated(success_message), "success")


@blueprint.route("/campaigns/<int:campaign_id>/activities/new", methods=["GET", "POST"])
def new_activity(campaign_id: int) -> Any:
    actor = current_actor()
    actor.require(Permission.PLAN)
    session = db_session()
    campaign = campaigns.get_campaign(session, campaign_id)
    channel = next((one for one in Channel if one.value == request.args.get("channel")), None)
    if channel is None:
        return render_template("pages/planning/channels.html", campaign=campaign, channels=list(Channel))
    form = build_activity_form(session, channel)
    if request.method == "GET":
        form.owner_id.data = str(actor.id)
        form.starts_on.data, form.ends_on.data = campaign.starts_on, campaign.ends_on
    if form.validate_on_submit():
        if earlier_response := idempotent_forms.previous_result():
            return earlier_response
        try:
            activity = activities.create_activity(session, actor, campaign, **form.to_input(channel))
        except ValidationFailed as error:
            add_form_problems(form, error)
        else:
            flash(_("“%(title)s” is planned.", title=activity.title), "success")
            return idempotent_forms.commit_and_redirect(url_for("planning.activity", activity_id=activity.id))
    return _render_form("activity_form", form, campaign=campaign, channel=channel, activity=None)


@blueprint.route("/activities/<int:activity_id>/edit", methods=["GET", "POST"])
def edit_activity(activity_id: int) -> Any:
    actor = current_actor()
    actor.require(Permission.PLAN)
    session = db_session()
    activity = activities.get_activity(session, activity_id)
    form = build_activity_form(session, activity.channel, activity)
    if form.validate_on_submit():
        try:
            activities.update_activity(
                session,
                actor,
                activity,
                revision=form.opened_revision(activity),
                **form.to_input(activity.channel),
            )
        except ValidationFailed as error:
            add_form_problems(form, error)
        except EditConflict:
            session.rollback()
            session.refresh(activity)
            context = {"campaign": activity.campaign, "channel": activity.channel, "activity": activity}
            saved = build_activity_form(session, activity.channel, activity, use_submitted=False)
            return _render_form("activity_form", form, **context, conflict=edit_conflict_view(form, saved, activity))
        else:
            session.commit()
            flash(_("Saved."), "success")
            return redirect(url_for("planning.activity", activity_id=activity_id), 303)
    return _render_form("activity_form", form, campaign=activity.campaign, channel=activity.channel, activity=activity)


@blueprint.get("/activities/<int:activity_id>")
def activity(activity_id: int) -> Any:
    actor = current_actor()
    actor.require(Permission.VIEW)
    session = db_session()
    activity = activities.get_activity(session, activity_id)
    is_mail = activity.channel is Channel.EMAIL
    preflight = launch.latest_preflight(session, activity) if is_mail else None
    email = activity.email_details
    message = session.get(Message, email.message_id) if email and email.message_id is not None else None
    version = session.get(MessageVersion, email.version_id) if email and email.version_id is not None else None
    return render_template(
        "pages/planning/activity.html",
        activity=activity,
        owner=session.get(User, activity.owner_id) if activity.owner_id is not None else None,
        message=message,
        version=version,
        edited=version is not None and message is not None and launch.draft_differs(message, version),
        contact_list=session.get(ContactList, email.list_id) if email and email.list_id is not None else None,
        audience_size=recipients.audience_size(session, activity)
        if is_mail and activity.status not in LAUNCHED_STATUSES
        else None,
        preflight=preflight,
        launched=activity.status in LAUNCHED_STATUSES,
        landing_page=form_editing.form_of(session, activity_id),
        verbs=_permitted_transitions(actor, activity),
        trail=audit_log_view,
        history=_history(actor, ("activity", [activity.id])),
        launch_form=LaunchForm(),
        soonest=clock.now(),
        url_label=URL_LABELS.get(activity.channel, N_("Address")),
    )


@blueprint.post("/activities/<int:activity_id>/launch")
def launch_activity(activity_id: int) -> Any:
    current_actor().require(Permission.LAUNCH)
    with db.read_only_session() as read_session:
        email = activities.get_activity(read_session, activity_id).email_details
        versions.precompile(read_session, email.message_id if email is not None else None)
    session = db_session()
    activity = activities.get_activity(session, activity_id)
    form = LaunchForm()
    at = form.launch_at() if form.validate() else None
    if form.errors or (form.later.data and at is None):
        field_error = next((error for error in form.at.errors if error), "") if form.at.data else ""
        flash(field_error or _("Please say when to launch."), "danger")
    elif at is not None and at <= clock.now():
        flash(_("That time has passed already. Choose a later one, or launch now."), "danger")
    else:
        success_message = N_("Launched.")
        if at is not None:
            success_message = (
                N_("Scheduled, for the first of the two times that clocks show it.")
                if form.is_ambiguous
                else N_("Scheduled.")
            )
        _run_transition(session, lambda: launch.launch(session, current_actor(), activity, at=at), success_message)
    return redirect(url_for("planning.activity", activity_id=activity_id), 303)


@blueprint.post("/activities/<int:activity_id>/<any(submit,approve,reopen,pause,resume,finish,cancel):verb>")
def move_activity(activity_id: int, verb: str) -> Any:
    session = db_session()
    activity = activities.get_activity(session, activity_id)
    act, success_message = ACTIVITY_ACTIONS[verb]
    _run_transition(session, lambda: act(session, current_actor(), activity), success_message)
    activity_url = url_for("planning.activity", activity_id=activity_id)
    from_progress_page = urlsplit(request.referrer or "").path == f"{activity_url}/progress"
    return redirect(f"{activity_url}/progress" if from_progress_page else activity_url, 303)
