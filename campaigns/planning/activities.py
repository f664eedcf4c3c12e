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
from campaigns.optimistic_lock import count_change
from campaigns.planning import validation
from campaigns.planning.models import Activity, ActivityStatus, Campaign, Channel, EmailDetails
from campaigns.planning.state_machine import CLOSED_CAMPAIGN, LAUNCHED, Transition, hold, move


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


_HOURS = ("window_days", "window_from", "window_until")
SETTLED_BY_LAUNCH = ("channel", "message_id", "list_id", "everybody", *_HOURS)
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


def activity_of(session: Session, activity_id: int) -> Activity:
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
    if campaign.built_in or campaign.status in CLOSED_CAMPAIGN:
        raise Conflict(N_("“%(title)s” is over: it takes no more activities."), title=campaign.name)
    activity = Activity(
        campaign_id=campaign.id,
        channel=Channel.OTHER,
        title="",
        status=ActivityStatus.DRAFT,
        url="",
        created_at=clock.now(),
    )
    _fill(session, activity, fields)
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
    hold(session, activity)
    before = {key: _value(activity, key) for key in ActivityInput.__annotations__}
    _fill(session, activity, fields)
    changed = sorted(key for key, value in before.items() if _value(activity, key) != value)
    if not changed:
        return
    count_change(session, activity, revision)
    session.flush()
    if activity.status is ActivityStatus.APPROVED and set(changed) & set(SETTLED_BY_LAUNCH):
        move(session, activity, Transition.REOPEN, ActivityStatus.DRAFT)
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


def _fill(session: Session, activity: Activity, fields: ActivityInput) -> None:
    wanted: dict[str, Any] = {
        key: value.strip() if isinstance(value, str) and not isinstance(value, Channel) else value
        for key, value in fields.items()
    }
    if wanted.get("channel", activity.channel) is not Channel.EMAIL:
        wanted |= _EMAIL_DEFAULTS

    def value(key: str) -> Any:
        return wanted.get(key, _value(activity, key))

    problems = [
        *validation.name("title", value("title")),
        *validation.words("notes", value("notes") or ""),
        *validation.period(value("starts_on"), value("ends_on")),
        *validation.money("cost", value("cost")),
        *validation.url(value("url")),
        *(validation.owner(session, wanted["owner_id"]) if "owner_id" in wanted else ()),
        *validation.window(value("window_days"), value("window_from"), value("window_until")),
        *(
            validation.later("stop_after", wanted["stop_after"])
            if wanted.get("stop_after") != _value(activity, "stop_after")
            else ()
        ),
        *validation.exists(session, Message, wanted.get("message_id"), "message_id"),
        *validation.exists(session, ContactList, wanted.get("list_id"), "list_id"),
    ]
    if value("everybody") and value("list_id") is not None:
        problems.append(ValidationProblem(N_("Choose either one list or everybody."), "list_id"))
    if activity.status in LAUNCHED:
        problems += [
            ValidationProblem(N_("This is settled since the launch."), key)
            for key in SETTLED_BY_LAUNCH
            if key in wanted and wanted[key] != _value(activity, key)
        ]
    if problems:
        raise ValidationFailed(problems)
    _set_values(activity, wanted)


def submit(session: Session, actor: Actor, activity: Activity) -> None:
    """Draft → review."""
    actor.require(Permission.PLAN)
    move(session, activity, Transition.SUBMIT, ActivityStatus.REVIEW)
    audit.record(session, actor, "submit", "activity", activity.id)


def approve(session: Session, actor: Actor, activity: Activity) -> None:
    """Draft or review → approved."""
    actor.require(Permission.LAUNCH)
    move(session, activity, Transition.APPROVE, ActivityStatus.APPROVED)
    audit.record(session, actor, "approve", "activity", activity.id)


def reopen(session: Session, actor: Actor, activity: Activity) -> None:
    """Review, approved or scheduled → draft, so that it can be edited. A scheduled launch is withdrawn."""
    actor.require(Permission.PLAN)
    if activity.status is ActivityStatus.SCHEDULED:
        actor.require(Permission.LAUNCH)  # This withdraws a launch.
    move(session, activity, Transition.REOPEN, ActivityStatus.DRAFT, due_at=None)
    if activity.email_details is not None:
        activity.email_details.version_id = None
    audit.record(session, actor, "reopen", "activity", activity.id)
