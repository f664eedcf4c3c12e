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
    activity_form,
    campaign_values,
)
from campaigns.planning.models import Activity, ActivityStatus, Campaign, Channel
from campaigns.planning.state_machine import LAUNCHED, AlreadyLaunched, Transition, possible
from campaigns.planning.views import links
from campaigns.web.i18n.formatting import translated
from campaigns.web.pages.edit_conflicts import clash
from campaigns.web.pages.error_pages import problem_text, put_problems, say
from campaigns.web.request_session import db_session
from campaigns.web.security import idempotent_forms
from campaigns.web.security.current_actor import actor

blueprint = Blueprint("planning", __name__)
blueprint.register_blueprint(links.blueprint)

CAMPAIGN_VERBS: dict[str, tuple[Callable[[Session, Actor, Campaign], None], str]] = {
    "launch": (campaigns.launch_campaign, N_("The campaign is active.")),
    "pause": (campaigns.pause_campaign, N_("The campaign and everything in it that ran is paused.")),
    "resume": (campaigns.resume_campaign, N_("The campaign goes on.")),
    "finish": (campaigns.finish_campaign, N_("The campaign is finished.")),
    "cancel": (campaigns.cancel_campaign, N_("The campaign is cancelled.")),
}
ACTIVITY_VERBS: dict[str, tuple[Callable[[Session, Actor, Activity], None], str]] = {
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
    who = actor()
    who.require(Permission.PLAN)
    session = db_session()
    form = CampaignForm(data={"owner_id": str(who.id), "colour": _next_colour(session), "objective": "leads"})
    form.offer(session, None)
    if form.validate_on_submit():
        if there := idempotent_forms.already():
            return there
        try:
            campaign = campaigns.create_campaign(session, who, **form.filled())
        except ValidationFailed as error:
            put_problems(form, error)
        else:
            flash(_("“%(name)s” is planned. Now add its activities.", name=campaign.name), "success")
            return idempotent_forms.made(url_for("planning.campaign", campaign_id=campaign.id))
    return _shown("campaign_form", form, campaign=None)


def _next_colour(session: Session) -> str:
    return COLOURS[(session.scalar(select(func.max(Campaign.id))) or 0) % len(COLOURS)]


def _shown(page: str, form: Any, **context: Any) -> Any:
    """Render a page with a form. The status is 409 for an edit conflict, 422 for a form with errors, else 200."""
    wrong = bool(form.errors) or bool(form.form_errors)
    status = 409 if context.setdefault("clash", None) else 422 if wrong else 200
    return render_template(f"pages/planning/{page}.html", form=form, **context), status


@blueprint.route("/campaigns/<int:campaign_id>/edit", methods=["GET", "POST"])
def edit_campaign(campaign_id: int) -> Any:
    who = actor()
    who.require(Permission.PLAN)
    session = db_session()
    campaign = campaigns.campaign_of(session, campaign_id)
    form = CampaignForm(data=campaign_values(campaign))
    form.offer(session, campaign)
    if form.validate_on_submit():
        try:
            campaigns.update_campaign(session, who, campaign, revision=form.seen(campaign), **form.filled())
        except ValidationFailed as error:
            put_problems(form, error)
        except EditConflict:
            session.rollback()
            session.refresh(campaign)
            saved = CampaignForm(formdata=None, data=campaign_values(campaign))
            saved.offer(session, campaign)
            return _shown("campaign_form", form, campaign=campaign, clash=clash(form, saved, campaign))
        else:
            session.commit()
            flash(_("Saved."), "success")
            return redirect(url_for("planning.campaign", campaign_id=campaign_id), 303)
    return _shown("campaign_form", form, campaign=campaign)


@blueprint.get("/campaigns/<int:campaign_id>")
def campaign(campaign_id: int) -> Any:
    who = actor()
    who.require(Permission.VIEW)
    session = db_session()
    found = campaigns.campaign_of(session, campaign_id)
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
        campaign=found,
        owner=session.get(User, found.owner_id) if found.owner_id is not None else None,
        groups={channel: some for channel, some in groups.items() if some},
        coverage={channel: sum(one.channel is channel for one in counted) for channel in Channel},
        planned_cost=sum((one.cost for one in counted if one.cost is not None), Decimal(0)),
        activities=len(rows),
        verbs=_buttons(who, found),
        trail=audit_log_view,
        history=_history(who, ("campaign", [found.id]), ("activity", [row.Activity.id for row in rows])),
    )


def _history(who: Actor, *subjects: tuple[str, Sequence[int]]) -> Sequence[AuditLogEntry]:
    return audit_log_view.history(db_session(), who, *subjects) if who.may(Permission.PLAN) else []


def _buttons(who: Actor, thing: Campaign | Activity) -> list[Transition]:
    """The transitions that are possible now and that the actor is permitted to apply."""
    planners = {Transition.SUBMIT, Transition.REOPEN}
    return [verb for verb in possible(thing) if who.may(Permission.PLAN if verb in planners else Permission.LAUNCH)]


@blueprint.post("/campaigns/<int:campaign_id>/<any(launch,pause,resume,finish,cancel):verb>")
def move_campaign(campaign_id: int, verb: str) -> Any:
    session = db_session()
    found = campaigns.campaign_of(session, campaign_id)
    act, said = CAMPAIGN_VERBS[verb]
    _tried(session, lambda: act(session, actor(), found), said)
    return redirect(url_for("planning.campaign", campaign_id=campaign_id), 303)


def _tried(session: Session, act: Callable[[], None], said: str) -> None:
    """Run a transition, commit, and flash the result. A Conflict or failed validation is flashed instead of raised."""
    try:
        act()
    except AlreadyLaunched as error:
        session.rollback()
        flash(say(error), "info")
    except Conflict as error:
        session.rollback()
        flash(say(error), "warning")
    except ValidationFailed as error:
        session.rollback()
        flash(" ".join(map(problem_text, error.problems)), "danger")
    else:
        session.commit()
        flash(translated(said), "success")


@blueprint.route("/campaigns/<int:campaign_id>/activities/new", methods=["GET", "POST"])
def new_activity(campaign_id: int) -> Any:
    who = actor()
    who.require(Permission.PLAN)
    session = db_session()
    found = campaigns.campaign_of(session, campaign_id)
    channel = next((one for one in Channel if one.value == request.args.get("channel")), None)
    if channel is None:
        return render_template("pages/planning/channels.html", campaign=found, channels=list(Channel))
    form = activity_form(session, channel)
    if request.method == "GET":
        form.owner_id.data = str(who.id)
        form.starts_on.data, form.ends_on.data = found.starts_on, found.ends_on
    if form.validate_on_submit():
        if there := idempotent_forms.already():
            return there
        try:
            made = activities.create_activity(session, who, found, **form.filled(channel))
        except ValidationFailed as error:
            put_problems(form, error)
        else:
            flash(_("“%(title)s” is planned.", title=made.title), "success")
            return idempotent_forms.made(url_for("planning.activity", activity_id=made.id))
    return _shown("activity_form", form, campaign=found, channel=channel, activity=None)


@blueprint.route("/activities/<int:activity_id>/edit", methods=["GET", "POST"])
def edit_activity(activity_id: int) -> Any:
    who = actor()
    who.require(Permission.PLAN)
    session = db_session()
    found = activities.activity_of(session, activity_id)
    form = activity_form(session, found.channel, found)
    if form.validate_on_submit():
        try:
            activities.update_activity(session, who, found, revision=form.seen(found), **form.filled(found.channel))
        except ValidationFailed as error:
            put_problems(form, error)
        except EditConflict:
            session.rollback()
            session.refresh(found)
            here = {"campaign": found.campaign, "channel": found.channel, "activity": found}
            saved = activity_form(session, found.channel, found, typed=False)
            return _shown("activity_form", form, **here, clash=clash(form, saved, found))
        else:
            session.commit()
            flash(_("Saved."), "success")
            return redirect(url_for("planning.activity", activity_id=activity_id), 303)
    return _shown("activity_form", form, campaign=found.campaign, channel=found.channel, activity=found)


@blueprint.get("/activities/<int:activity_id>")
def activity(activity_id: int) -> Any:
    who = actor()
    who.require(Permission.VIEW)
    session = db_session()
    found = activities.activity_of(session, activity_id)
    is_mail = found.channel is Channel.EMAIL
    checked = launch.latest_preflight(session, found) if is_mail else None
    email = found.email_details
    message = session.get(Message, email.message_id) if email and email.message_id is not None else None
    version = session.get(MessageVersion, email.version_id) if email and email.version_id is not None else None
    return render_template(
        "pages/planning/activity.html",
        activity=found,
        owner=session.get(User, found.owner_id) if found.owner_id is not None else None,
        message=message,
        version=version,
        edited=version is not None and message is not None and launch.differs(message, version),
        contact_list=session.get(ContactList, email.list_id) if email and email.list_id is not None else None,
        audience_size=recipients.size_of(session, found) if is_mail and found.status not in LAUNCHED else None,
        preflight=checked,
        launched=found.status in LAUNCHED,
        landing_page=form_editing.form_of(session, activity_id),
        verbs=_buttons(who, found),
        trail=audit_log_view,
        history=_history(who, ("activity", [found.id])),
        launch_form=LaunchForm(),
        soonest=clock.now(),
        url_label=URL_LABELS.get(found.channel, N_("Address")),
    )


@blueprint.post("/activities/<int:activity_id>/launch")
def launch_activity(activity_id: int) -> Any:
    actor().require(Permission.LAUNCH)
    with db.reading() as looking:
        email = activities.activity_of(looking, activity_id).email_details
        versions.compile_ahead(looking, email.message_id if email is not None else None)
    session = db_session()
    found = activities.activity_of(session, activity_id)
    form = LaunchForm()
    at = form.instant() if form.validate() else None
    if form.errors or (form.later.data and at is None):
        told = next((error for error in form.at.errors if error), "") if form.at.data else ""
        flash(told or _("Please say when to launch."), "danger")
    elif at is not None and at <= clock.now():
        flash(_("That time has passed already. Choose a later one, or launch now."), "danger")
    else:
        said = N_("Launched.")
        if at is not None:
            said = (
                N_("Scheduled, for the first of the two times that clocks show it.") if form.twice else N_("Scheduled.")
            )
        _tried(session, lambda: launch.launch(session, actor(), found, at=at), said)
    return redirect(url_for("planning.activity", activity_id=activity_id), 303)


@blueprint.post("/activities/<int:activity_id>/<any(submit,approve,reopen,pause,resume,finish,cancel):verb>")
def move_activity(activity_id: int, verb: str) -> Any:
    session = db_session()
    found = activities.activity_of(session, activity_id)
    act, said = ACTIVITY_VERBS[verb]
    _tried(session, lambda: act(session, actor(), found), said)
    own = url_for("planning.activity", activity_id=activity_id)
    watched = urlsplit(request.referrer or "").path == f"{own}/progress"
    return redirect(f"{own}/progress" if watched else own, 303)
