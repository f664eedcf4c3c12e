"""Activity services: create, update, submit for review, approve, reopen. Launching is in ``launch``."""

from datetime import date, datetime, time
from decimal import Decimal
from typing import Any, TypedDict, Unpack

from sqlalchemy.orm import Session

from campaigns import clock
from campaigns.accounts import audit
from campaigns.accounts.actor import Actor, Permission
from campaigns.audience.models import ContactList
from campaigns.content.models import Message
from campaigns.errors import Conflict, NotFound, ValidationFailed, ValidationProblem
from campaigns.i18n import N_
from campaigns.optimistic_lock import bump_revision
from campaigns.planning import validation
from campaigns.planning.models import Activity, ActivityStatus, Campaign, Channel, EmailDetails
from campaigns.planning.state_machine import (
    CLOSED_CAMPAIGN_STATUSES,
    LAUNCHED_STATUSES,
    Transition,
    apply_transition,
    lock_activity,
)


class ActivityInput(TypedDict, total=False):
    """Editable fields of an activity. Services change only the keys that are present.

    The fields from ``message_id`` on apply to e-mail activities only.
    """

    channel: Channel
    title: str
    owner_id: int | None
    starts_on: date | None
    ends_on: date | None
    cost: Decimal | None
    url: str
    notes: str
    message_id: int | None
    list_id: int | None
    everybody: bool
    stop_after: datetime | None
    window_days: str
    window_from: time | None
    window_until: time | None


_WINDOW_FIELDS = ("window_days", "window_from", "window_until")
FIXED_AT_LAUNCH = ("channel", "message_id", "list_id", "everybody", *_WINDOW_FIELDS)
_EMAIL_DEFAULTS: ActivityInput = {
    "message_id": None,
    "list_id": None,
    "everybody": False,
    "stop_after": None,
    "window_days": "",
    "window_from": None,
    "window_until": None,
}
"""The fields that :class:`EmailDetails` holds, with their values for an activity of another channel."""


def get_activity(session: Session, activity_id: int) -> Activity:
    """The activity with this id. Raises NotFound for an unknown id and for built-in activities."""
    activity = session.get(Activity, activity_id)
    if activity is None or activity.built_in:
        raise NotFound(N_("There is no such activity."))
    return activity


def create_activity(session: Session, actor: Actor, campaign: Campaign, **fields: Unpack[ActivityInput]) -> Activity:
    """Create a draft in ``campaign``. ``channel`` and ``title`` are required.

    Raises ValidationFailed, and Conflict when the campaign is over or built in.
    """
    actor.require(Permission.PLAN)
    if campaign.built_in or campaign.status in CLOSED_CAMPAIGN_STATUSES:
        raise Conflict(N_("“%(title)s” is over: it takes no more activities."), title=campaign.name)
    activity = Activity(
        campaign_id=campaign.id,
        channel=Channel.OTHER,
        title="",
        status=ActivityStatus.DRAFT,
        url="",
        created_at=clock.now(),
    )
    _apply_fields(session, activity, fields)
    activity.campaign = campaign
    session.add(activity)
    session.flush()
    audit.record(session, actor, "create", "activity", activity.id, title=activity.title, channel=activity.channel)
    return activity


def update_activity(
    session: Session, actor: Actor, activity: Activity, *, revision: int | None = None, **fields: Unpack[ActivityInput]
) -> None:
    """Change the given fields. Raises ValidationFailed without changing anything, and EditConflict when the row was
    changed after ``revision`` was read.

    Channel, message, audience and send window cannot change after the launch. Changing one of them after an approval
    moves the activity back to draft, so that only approved content is launched as approved.
    """
    actor.require(Permission.PLAN)
    lock_activity(session, activity)
    before = {key: _value(activity, key) for key in ActivityInput.__annotations__}
    _apply_fields(session, activity, fields)
    changed = sorted(key for key, value in before.items() if _value(activity, key) != value)
    if not changed:
        return
    bump_revision(session, activity, revision)
    session.flush()
    if activity.status is ActivityStatus.APPROVED and set(changed) & set(FIXED_AT_LAUNCH):
        apply_transition(session, activity, Transition.REOPEN, ActivityStatus.DRAFT)
    audit.record(session, actor, "update", "activity", activity.id, changed=changed)


def _value(activity: Activity, key: str) -> Any:
    """The activity's value of a field of :class:`ActivityInput`."""
    if key not in _EMAIL_DEFAULTS:
        return getattr(activity, key)
    details = activity.email_details
    return getattr(details, key) if details is not None else _EMAIL_DEFAULTS[key]  # type: ignore[literal-required]


def _set_values(activity: Activity, values: dict[str, Any]) -> None:
    """Write the fields of :class:`ActivityInput` to the activity and, for e-mail, to its details."""
    for key, value in values.items():
        if key not in _EMAIL_DEFAULTS:
            setattr(activity, key, value)
    if activity.channel is not Channel.EMAIL:
        activity.email_details = None
        return
    if activity.email_details is None:
        activity.email_details = EmailDetails(everybody=False, window_days="", expanded_to=0)
    for key, value in values.items():
        if key in _EMAIL_DEFAULTS:
            setattr(activity.email_details, key, value)


def _apply_fields(session: Session, activity: Activity, fields: ActivityInput) -> None:
    new_values: dict[str, Any] = {
        key: value.strip() if isinstance(value, str) and not isinstance(value, Channel) else value
        for key, value in fields.items()
    }
    if new_values.get("channel", activity.channel) is not Channel.EMAIL:
        new_values |= _EMAIL_DEFAULTS

    def value(key: str) -> Any:
        return new_values.get(key, _value(activity, key))

    problems = [
        *validation.check_name("title", value("title")),
        *validation.check_text("notes", value("notes") or ""),
        *validation.check_period(value("starts_on"), value("ends_on")),
        *validation.check_amount("cost", value("cost")),
        *validation.check_url(value("url")),
        *(validation.check_owner(session, new_values["owner_id"]) if "owner_id" in new_values else ()),
        *validation.check_window(value("window_days"), value("window_from"), value("window_until")),
        *(
            validation.check_future("stop_after", new_values["stop_after"])
            if new_values.get("stop_after") != _value(activity, "stop_after")
            else ()
        ),
        *validation.check_exists(session, Message, new_values.get("message_id"), "message_id"),
        *validation.check_exists(session, ContactList, new_values.get("list_id"), "list_id"),
    ]
    if value("everybody") and value("list_id") is not None:
        problems.append(ValidationProblem(N_("Choose either one list or everybody."), "list_id"))
    if activity.status in LAUNCHED_STATUSES:
        problems += [
            ValidationProblem(N_("This is settled since the launch."), key)
            for key in FIXED_AT_LAUNCH
            if key in new_values and new_values[key] != _value(activity, key)
        ]
    if problems:
        raise ValidationFailed(problems)
    _set_values(activity, new_values)


def submit(session: Session, actor: Actor, activity: Activity) -> None:
    """Draft → review."""
    actor.require(Permission.PLAN)
    apply_transition(session, activity, Transition.SUBMIT, ActivityStatus.REVIEW)
    audit.record(session, actor, "submit", "activity", activity.id)


def approve(session: Session, actor: Actor, activity: Activity) -> None:
    """Draft or review → approved."""
    actor.require(Permission.LAUNCH)
    apply_transition(session, activity, Transition.APPROVE, ActivityStatus.APPROVED)
    audit.record(session, actor, "approve", "activity", activity.id)


def reopen(session: Session, actor: Actor, activity: Activity) -> None:
    """Review, approved or scheduled → draft, so that it can be edited. A scheduled launch is withdrawn."""
    actor.require(Permission.PLAN)
    if activity.status is ActivityStatus.SCHEDULED:
        actor.require(Permission.LAUNCH)  # This withdraws a launch.
    apply_transition(session, activity, Transition.REOPEN, ActivityStatus.DRAFT, due_at=None)
    if activity.email_details is not None:
        activity.email_details.version_id = None
    audit.record(session, actor, "reopen", "activity", activity.id)
