"""Launch, and what follows it: pause, resume, finish, cancel; and the clock's part in it."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from datetime import datetime

from sqlalchemy import select
from sqlalchemy.orm import Session

from campaigns import clock, retries
from campaigns.accounts import audit
from campaigns.accounts.actor import SYSTEM, Actor, Permission
from campaigns.content import versions
from campaigns.content.models import Message, MessageVersion
from campaigns.errors import Conflict, ValidationFailed, ValidationProblem
from campaigns.i18n import N_
from campaigns.planning import recipients
from campaigns.planning.models import Activity, ActivityStatus, Campaign, CampaignStatus, Channel, Preflight
from campaigns.planning.state_machine import ACTIVITY, Transition, hold, move, refusal
from campaigns.retries import JobType

_CONTENT = ("subject", "preheader", "mjml", "language", "from_name", "from_email", "reply_to")


def subject_parts(session: Session, activity: Activity) -> dict[str, str]:
    """What a preflight of an e-mail activity is bound to, hash by name: its message's content and who gets it."""
    message = session.get(Message, activity.email.message_id) if activity.email.message_id is not None else None
    content = {column: getattr(message, column) if message else None for column in _CONTENT}
    subject = {"message": activity.email.message_id, **content, "audience": recipients.fingerprint(session, activity)}
    return {name: hashlib.sha256(json.dumps(value).encode()).hexdigest()[:16] for name, value in subject.items()}


def differs(message: Message, version: MessageVersion) -> bool:
    """Whether what was frozen is not what the draft says any more."""
    return any(
        getattr(message, name) != getattr(version, name) for name in ("subject", "preheader", "mjml", "language")
    )


def hash_of(parts: Mapping[str, str]) -> str:
    """One hash of all that a preflight is bound to."""
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()


def subject_hash(session: Session, activity: Activity) -> str:
    """The hash of :func:`subject_parts`."""
    return hash_of(subject_parts(session, activity))


def latest_preflight(session: Session, activity: Activity) -> Preflight | None:
    """The newest preflight, whether or not it still fits."""
    newest = select(Preflight).where(Preflight.activity_id == activity.id).order_by(Preflight.id.desc()).limit(1)
    return session.scalars(newest).one_or_none()


def launch(session: Session, actor: Actor, activity: Activity, *, at: datetime | None = None) -> None:
    """Let the activity run: now, or from ``at`` on. Its planned campaign becomes active.

    E-mail needs a message, an audience, and a preflight that passed and fits what would be sent now;
    the message is frozen. Raises Invalid, Conflict, and AlreadyLaunched (a Conflict) for the
    second of two clicks.
    """
    actor.require(Permission.LAUNCH)
    campaign = _locked_campaign(session, activity)
    hold(session, activity)
    if activity.status not in ACTIVITY[Transition.LAUNCH].sources:
        raise refusal(
            activity, Transition.LAUNCH
        )  # Before any question about preflights, which the first click answered.
    if campaign.status not in (CampaignStatus.PLANNED, CampaignStatus.ACTIVE):
        raise Conflict(N_("The campaign is paused or over: nothing can be launched in it."))
    now = clock.now()
    if at is not None and at.tzinfo is None:
        raise ValueError(f"naive datetime {at!r}: instants are aware")
    later = at if at is not None and at > now else None
    stop_after = activity.email_details.stop_after if activity.email_details is not None else None
    if stop_after is not None and stop_after <= (later or now):
        raise Conflict(N_("The time to send is over before it begins: change it first."))
    version_id = _frozen(session, actor, activity) if activity.channel is Channel.EMAIL else None
    if later is not None:
        move(session, activity, Transition.LAUNCH, ActivityStatus.SCHEDULED, due_at=later)
    else:
        move(
            session,
            activity,
            Transition.LAUNCH,
            ActivityStatus.LIVE,
            due_at=now,
            launched_at=now,
        )
    if activity.email_details is not None:
        activity.email_details.version_id = version_id
    if campaign.status is CampaignStatus.PLANNED:
        move(session, campaign, Transition.LAUNCH, CampaignStatus.ACTIVE)
        audit.record(session, actor, "launch", "campaign", campaign.id, by_activity=activity.id)
    audit.record(session, actor, "launch", "activity", activity.id, at=(later or now).isoformat(), version=version_id)


def _locked_campaign(session: Session, activity: Activity) -> Campaign:
    """The campaign's row, locked first by whoever starts or stops something in it: otherwise an
    activity could go live in a campaign that is being paused."""
    return session.scalars(
        select(Campaign)
        .where(Campaign.id == activity.campaign_id)
        .with_for_update()
        .execution_options(populate_existing=True)
    ).one()


def _frozen(session: Session, actor: Actor, activity: Activity) -> int:
    message = session.get(Message, activity.email.message_id) if activity.email.message_id is not None else None
    problems = []
    if message is None:
        problems.append(ValidationProblem(N_("Choose a message first."), "message_id"))
    if not activity.email.everybody and activity.email.list_id is None:
        problems.append(ValidationProblem(N_("Choose an audience first."), "list_id"))
    if problems or message is None:
        raise ValidationFailed(problems)
    preflight = latest_preflight(session, activity)
    if preflight is None:
        raise Conflict(N_("Run the preflight first."))
    if preflight.subject_hash != subject_hash(session, activity):
        raise Conflict(N_("The message or the audience has changed since the preflight: run it again."))
    if not preflight.passed:
        raise Conflict(N_("The preflight found errors: correct them and run it again."))
    return versions.freeze(session, actor, message).id


def pause(session: Session, actor: Actor, activity: Activity) -> None:
    """Scheduled or live → paused: a worker finishes at most the slice it has claimed."""
    actor.require(Permission.LAUNCH)
    move(session, activity, Transition.PAUSE, ActivityStatus.PAUSED, paused_with_campaign=False)
    audit.record(session, actor, "pause", "activity", activity.id)


def resume(session: Session, actor: Actor, activity: Activity) -> None:
    """Paused → live, or scheduled again if it had not begun."""
    actor.require(Permission.LAUNCH)
    campaign = _locked_campaign(session, activity)
    if campaign.status is CampaignStatus.PAUSED:
        raise Conflict(N_("The whole campaign is paused: resume the campaign."))
    session.refresh(activity)
    to = ActivityStatus.LIVE if activity.launched_at is not None else ActivityStatus.SCHEDULED
    move(session, activity, Transition.RESUME, to, paused_with_campaign=False)
    audit.record(session, actor, "resume", "activity", activity.id)


def finish(session: Session, actor: Actor, activity: Activity) -> None:
    """Live or paused → finished."""
    actor.require(Permission.LAUNCH)
    move(session, activity, Transition.FINISH, ActivityStatus.FINISHED, finished_at=clock.now())
    audit.record(session, actor, "finish", "activity", activity.id)


def take_up(session: Session, actor: Actor, activity: Activity) -> None:
    """Finished → live, for mails that are to be sent again. Raises Conflict when its campaign is over or paused."""
    actor.require(Permission.LAUNCH)
    if _locked_campaign(session, activity).status is not CampaignStatus.ACTIVE:
        raise Conflict(N_("The campaign is paused or over: nothing can be launched in it."))
    move(session, activity, Transition.TAKE_UP, ActivityStatus.LIVE, finished_at=None)
    audit.record(session, actor, "reactivate", "activity", activity.id)


def cancel(session: Session, actor: Actor, activity: Activity) -> None:
    """Anything that is not over → cancelled."""
    actor.require(Permission.LAUNCH)
    move(session, activity, Transition.CANCEL, ActivityStatus.CANCELLED, finished_at=clock.now())
    audit.record(session, actor, "cancel", "activity", activity.id)


def due_launches(session: Session) -> list[int]:
    """Ids of scheduled activities whose time has come."""
    due = select(Activity.id).where(Activity.status == ActivityStatus.SCHEDULED, Activity.due_at <= clock.now())
    return list(session.scalars(due.order_by(Activity.due_at, Activity.id)))


def begin_due(session: Session) -> list[int]:
    """Scheduled → live for each activity whose time has come; the ids of those that this call began."""
    return retries.carry(session, JobType.START_LAUNCH, due_launches(session), lambda ids: _begun(session, ids))


def _begun(session: Session, activity_ids: Sequence[int]) -> list[int]:
    begun = []
    for activity_id in activity_ids:
        activity = session.get_one(Activity, activity_id)
        try:
            move(session, activity, Transition.BEGIN, ActivityStatus.LIVE, launched_at=clock.now())
        except Conflict:
            continue  # Somebody was faster: another tick, or a pause.
        audit.record(session, SYSTEM, "start", "activity", activity_id)
        begun.append(activity_id)
    return begun
