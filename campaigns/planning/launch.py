"""Launch of activities, and the transitions after it: pause, resume, finish, cancel, scheduled start.

Launching an e-mail activity freezes its message and requires a passed preflight whose hash matches the current
content and audience. Every transition is a compare-and-swap by
:func:`campaigns.planning.state_machine.apply_transition`.
"""

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
from campaigns.planning.state_machine import (
    ACTIVITY_TRANSITIONS,
    Transition,
    apply_transition,
    lock_activity,
    transition_conflict,
)
from campaigns.retries import JobType

_CONTENT_COLUMNS = ("subject", "preheader", "mjml", "language", "from_name", "from_email", "reply_to")


def subject_parts(session: Session, activity: Activity) -> dict[str, str]:
    """The inputs of an e-mail activity's preflight, as name → 16 hex digits of SHA-256.

    The names are the message id, its content columns and the audience.
    """
    message = session.get(Message, activity.email.message_id) if activity.email.message_id is not None else None
    content = {column: getattr(message, column) if message else None for column in _CONTENT_COLUMNS}
    subject = {
        "message": activity.email.message_id,
        **content,
        "audience": recipients.audience_fingerprint(session, activity),
    }
    return {name: hashlib.sha256(json.dumps(value).encode()).hexdigest()[:16] for name, value in subject.items()}


def draft_differs(message: Message, version: MessageVersion) -> bool:
    """Whether the draft ``message`` has changed since ``version`` was frozen."""
    return any(
        getattr(message, name) != getattr(version, name) for name in ("subject", "preheader", "mjml", "language")
    )


def hash_parts(parts: Mapping[str, str]) -> str:
    """One SHA-256 hex digest over all inputs of a preflight."""
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()


def subject_hash(session: Session, activity: Activity) -> str:
    """The digest of :func:`subject_parts`, as stored in ``Preflight.subject_hash``."""
    return hash_parts(subject_parts(session, activity))


def latest_preflight(session: Session, activity: Activity) -> Preflight | None:
    """The newest preflight of the activity, even if its hash no longer matches; None if there is none."""
    newest = select(Preflight).where(Preflight.activity_id == activity.id).order_by(Preflight.id.desc()).limit(1)
    return session.scalars(newest).one_or_none()


def launch(session: Session, actor: Actor, activity: Activity, *, at: datetime | None = None) -> None:
    """Start the activity now, or schedule it for ``at`` if that lies in the future. A planned campaign becomes active.

    An e-mail activity needs a message, an audience and a passed preflight of exactly the current content and
    audience; its message is frozen. Raises ValidationFailed when message or audience is missing, Conflict when the
    state or the preflight does not allow a launch, LaunchConflict (a Conflict) for the second of two clicks, and
    ValueError for a naive ``at``.
    """
    actor.require(Permission.LAUNCH)
    campaign = _lock_campaign(session, activity)
    lock_activity(session, activity)
    if activity.status not in ACTIVITY_TRANSITIONS[Transition.LAUNCH].sources:
        raise transition_conflict(
            activity, Transition.LAUNCH
        )  # Checked before the preflight, so that a second click is reported as already launched.
    if campaign.status not in (CampaignStatus.PLANNED, CampaignStatus.ACTIVE):
        raise Conflict(N_("The campaign is paused or over: nothing can be launched in it."))
    now = clock.now()
    if at is not None and at.tzinfo is None:
        raise ValueError(f"naive datetime {at!r}: instants are aware")
    scheduled_for = at if at is not None and at > now else None
    stop_after = activity.email_details.stop_after if activity.email_details is not None else None
    if stop_after is not None and stop_after <= (scheduled_for or now):
        raise Conflict(N_("The time to send is over before it begins: change it first."))
    version_id = _freeze_message(session, actor, activity) if activity.channel is Channel.EMAIL else None
    if scheduled_for is not None:
        apply_transition(session, activity, Transition.LAUNCH, ActivityStatus.SCHEDULED, due_at=scheduled_for)
    else:
        apply_transition(
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
        apply_transition(session, campaign, Transition.LAUNCH, CampaignStatus.ACTIVE)
        audit.record(session, actor, "launch", "campaign", campaign.id, by_activity=activity.id)
    audit.record(
        session, actor, "launch", "activity", activity.id, at=(scheduled_for or now).isoformat(), version=version_id
    )


def _lock_campaign(session: Session, activity: Activity) -> Campaign:
    """Read the campaign's row under a lock.

    Every service that starts or stops something in a campaign takes this lock first. Otherwise an activity could
    go live in a campaign that is being paused in another transaction.
    """
    return session.scalars(
        select(Campaign)
        .where(Campaign.id == activity.campaign_id)
        .with_for_update()
        .execution_options(populate_existing=True)
    ).one()


def _freeze_message(session: Session, actor: Actor, activity: Activity) -> int:
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
    """Scheduled or live → paused. A worker still finishes at most the batch that it has claimed."""
    actor.require(Permission.LAUNCH)
    apply_transition(session, activity, Transition.PAUSE, ActivityStatus.PAUSED, paused_with_campaign=False)
    audit.record(session, actor, "pause", "activity", activity.id)


def resume(session: Session, actor: Actor, activity: Activity) -> None:
    """Paused → live, or → scheduled if the activity had not started. Raises Conflict while its campaign is paused."""
    actor.require(Permission.LAUNCH)
    campaign = _lock_campaign(session, activity)
    if campaign.status is CampaignStatus.PAUSED:
        raise Conflict(N_("The whole campaign is paused: resume the campaign."))
    session.refresh(activity)
    target = ActivityStatus.LIVE if activity.launched_at is not None else ActivityStatus.SCHEDULED
    apply_transition(session, activity, Transition.RESUME, target, paused_with_campaign=False)
    audit.record(session, actor, "resume", "activity", activity.id)


def finish(session: Session, actor: Actor, activity: Activity) -> None:
    """Live or paused → finished."""
    actor.require(Permission.LAUNCH)
    apply_transition(session, activity, Transition.FINISH, ActivityStatus.FINISHED, finished_at=clock.now())
    audit.record(session, actor, "finish", "activity", activity.id)


def reopen_finished(session: Session, actor: Actor, activity: Activity) -> None:
    """Finished → live, so that failed mails can be sent again. Raises Conflict unless the campaign is active."""
    actor.require(Permission.LAUNCH)
    if _lock_campaign(session, activity).status is not CampaignStatus.ACTIVE:
        raise Conflict(N_("The campaign is paused or over: nothing can be launched in it."))
    apply_transition(session, activity, Transition.REOPEN_FINISHED, ActivityStatus.LIVE, finished_at=None)
    audit.record(session, actor, "reactivate", "activity", activity.id)


def cancel(session: Session, actor: Actor, activity: Activity) -> None:
    """Any status but finished and cancelled → cancelled."""
    actor.require(Permission.LAUNCH)
    apply_transition(session, activity, Transition.CANCEL, ActivityStatus.CANCELLED, finished_at=clock.now())
    audit.record(session, actor, "cancel", "activity", activity.id)


def due_launches(session: Session) -> list[int]:
    """Ids of scheduled activities with ``due_at`` in the past, earliest first."""
    due = select(Activity.id).where(Activity.status == ActivityStatus.SCHEDULED, Activity.due_at <= clock.now())
    return list(session.scalars(due.order_by(Activity.due_at, Activity.id)))


def begin_due_launches(session: Session) -> list[int]:
    """Scheduled → live for each due activity. Returns the ids of the activities that this call started."""
    return retries.run_batch(
        session, JobType.START_LAUNCH, due_launches(session), lambda ids: _begin_activities(session, ids)
    )


def _begin_activities(session: Session, activity_ids: Sequence[int]) -> list[int]:
    started_ids = []
    for activity_id in activity_ids:
        activity = session.get_one(Activity, activity_id)
        try:
            apply_transition(session, activity, Transition.BEGIN, ActivityStatus.LIVE, launched_at=clock.now())
        except Conflict:
            continue  # Another transaction was faster: a second tick, or a pause.
        audit.record(session, SYSTEM, "start", "activity", activity_id)
        started_ids.append(activity_id)
    return started_ids
