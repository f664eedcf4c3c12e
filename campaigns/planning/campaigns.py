"""Campaign services: create, update, launch, pause, resume, finish, cancel, archive."""

from datetime import date
from decimal import Decimal
from typing import Any, TypedDict, Unpack

from sqlalchemy import ColumnElement, select, update
from sqlalchemy.orm import Session

from campaigns import clock
from campaigns.accounts import audit
from campaigns.accounts.actor import Actor, Permission
from campaigns.errors import Conflict, NotFound, ValidationFailed
from campaigns.i18n import N_
from campaigns.optimistic_lock import bump_revision
from campaigns.planning import validation
from campaigns.planning.models import Activity, ActivityStatus, Campaign, CampaignStatus, Objective
from campaigns.planning.state_machine import Transition, apply_transition


class CampaignInput(TypedDict, total=False):
    """Editable fields of a campaign. Services change only the keys that are present."""

    name: str
    objective: Objective
    owner_id: int | None
    starts_on: date | None
    ends_on: date | None
    budget: Decimal | None
    colour: str
    description: str


def get_campaign(session: Session, campaign_id: int) -> Campaign:
    """The campaign with this id. Raises NotFound for an unknown id and for the built-in campaign."""
    campaign = session.get(Campaign, campaign_id)
    if campaign is None or campaign.built_in:
        raise NotFound(N_("There is no such campaign."))
    return campaign


def create_campaign(session: Session, actor: Actor, **fields: Unpack[CampaignInput]) -> Campaign:
    """Create a campaign with status *planned*. ``name`` and ``objective`` are required. Raises ValidationFailed."""
    actor.require(Permission.PLAN)
    campaign = Campaign(
        name="", objective=Objective.LEADS, status=CampaignStatus.PLANNED, colour="#206bc4", created_at=clock.now()
    )
    _apply_fields(session, campaign, fields)
    session.add(campaign)
    session.flush()
    audit.record(session, actor, "create", "campaign", campaign.id, name=campaign.name)
    return campaign


def update_campaign(
    session: Session, actor: Actor, campaign: Campaign, *, revision: int | None = None, **fields: Unpack[CampaignInput]
) -> None:
    """Change the given fields. Raises ValidationFailed without changing anything, and EditConflict when the row
    was changed after ``revision`` was read."""
    actor.require(Permission.PLAN)
    before = {key: getattr(campaign, key) for key in fields}
    _apply_fields(session, campaign, fields)
    changed = sorted(key for key, value in before.items() if getattr(campaign, key) != value)
    if changed:
        bump_revision(session, campaign, revision)
        session.flush()
        audit.record(session, actor, "update", "campaign", campaign.id, changed=changed)


def _apply_fields(session: Session, campaign: Campaign, fields: CampaignInput) -> None:
    new_values: dict[str, Any] = {
        key: value.strip() if isinstance(value, str) and not isinstance(value, Objective) else value
        for key, value in fields.items()
    }
    if "colour" in new_values:
        new_values["colour"] = new_values["colour"].lower()

    def value(key: str) -> Any:
        return new_values.get(key, getattr(campaign, key))

    problems = [
        *validation.check_name("name", value("name")),
        *validation.check_text("description", value("description") or ""),
        *validation.check_period(value("starts_on"), value("ends_on")),
        *validation.check_amount("budget", value("budget")),
        *validation.check_colour(value("colour")),
        *(validation.check_owner(session, new_values["owner_id"]) if "owner_id" in new_values else ()),
    ]
    if problems:
        raise ValidationFailed(problems)
    for key, new in new_values.items():
        setattr(campaign, key, new)


def launch_campaign(session: Session, actor: Actor, campaign: Campaign) -> None:
    """Planned → active. Activities are not launched with it; each has a launch of its own."""
    actor.require(Permission.LAUNCH)
    apply_transition(session, campaign, Transition.LAUNCH, CampaignStatus.ACTIVE)
    audit.record(session, actor, "launch", "campaign", campaign.id)


def pause_campaign(session: Session, actor: Actor, campaign: Campaign) -> None:
    """Active → paused, together with its live and scheduled activities.

    These activities get ``paused_with_campaign``, so that resuming the campaign resumes exactly them.
    """
    actor.require(Permission.LAUNCH)
    apply_transition(session, campaign, Transition.PAUSE, CampaignStatus.PAUSED)
    paused = _move_activities(
        session,
        campaign,
        _status_in(ActivityStatus.SCHEDULED, ActivityStatus.LIVE),
        ActivityStatus.PAUSED,
        with_campaign=True,
    )
    audit.record(session, actor, "pause", "campaign", campaign.id, activities=paused)


def resume_campaign(session: Session, actor: Actor, campaign: Campaign) -> None:
    """Paused → active, and resume exactly the activities that pausing the campaign had paused."""
    actor.require(Permission.LAUNCH)
    apply_transition(session, campaign, Transition.RESUME, CampaignStatus.ACTIVE)
    paused_by_campaign = _status_in(ActivityStatus.PAUSED) & Activity.paused_with_campaign
    not_started = Activity.launched_at.is_(None)
    resumed = _move_activities(session, campaign, paused_by_campaign & not_started, ActivityStatus.SCHEDULED)
    resumed += _move_activities(session, campaign, paused_by_campaign & ~not_started, ActivityStatus.LIVE)
    audit.record(session, actor, "resume", "campaign", campaign.id, activities=sorted(resumed))


def finish_campaign(session: Session, actor: Actor, campaign: Campaign) -> None:
    """Active or paused → finished. Started activities become finished, all other open ones cancelled."""
    actor.require(Permission.LAUNCH)
    apply_transition(session, campaign, Transition.FINISH, CampaignStatus.FINISHED)
    finished = _move_activities(session, campaign, _STARTED, ActivityStatus.FINISHED)
    cancelled = _move_activities(session, campaign, _NOT_OVER, ActivityStatus.CANCELLED)
    audit.record(session, actor, "finish", "campaign", campaign.id, finished=finished, cancelled=cancelled)


def cancel_campaign(session: Session, actor: Actor, campaign: Campaign) -> None:
    """Planned, active or paused → cancelled, together with all activities that are not over."""
    actor.require(Permission.LAUNCH)
    apply_transition(session, campaign, Transition.CANCEL, CampaignStatus.CANCELLED)
    cancelled = _move_activities(session, campaign, _NOT_OVER, ActivityStatus.CANCELLED)
    audit.record(session, actor, "cancel", "campaign", campaign.id, cancelled=cancelled)


def archive_campaign(session: Session, actor: Actor, campaign: Campaign) -> None:
    """Hide the campaign from lists. Raises Conflict while it is active or paused."""
    actor.require(Permission.PLAN)
    if campaign.status in (CampaignStatus.ACTIVE, CampaignStatus.PAUSED):
        raise Conflict(N_("Finish or cancel the campaign first: what still works belongs in sight."))
    if campaign.archived_at is None:
        campaign.archived_at = clock.now()
        audit.record(session, actor, "archive", "campaign", campaign.id)


def unarchive_campaign(session: Session, actor: Actor, campaign: Campaign) -> None:
    """Show an archived campaign in lists again."""
    actor.require(Permission.PLAN)
    if campaign.archived_at is not None:
        campaign.archived_at = None
        audit.record(session, actor, "unarchive", "campaign", campaign.id)


def _status_in(*statuses: ActivityStatus) -> ColumnElement[bool]:
    return Activity.status.in_(statuses)


_STARTED = _status_in(ActivityStatus.LIVE) | (_status_in(ActivityStatus.PAUSED) & Activity.launched_at.is_not(None))
_NOT_OVER = Activity.status.not_in((ActivityStatus.FINISHED, ActivityStatus.CANCELLED))


def _move_activities(
    session: Session,
    campaign: Campaign,
    condition: ColumnElement[bool],
    to: ActivityStatus,
    *,
    with_campaign: bool = False,
) -> list[int]:
    values: dict[str, Any] = {"status": to, "paused_with_campaign": with_campaign}
    if to in (ActivityStatus.FINISHED, ActivityStatus.CANCELLED):
        values["finished_at"] = clock.now()
    changed = session.connection().execute(
        update(Activity).where(Activity.campaign_id == campaign.id, condition).values(**values).returning(Activity.id)
    )
    ids = sorted(changed.scalars())
    # The bulk UPDATE bypasses the identity map, so rows already loaded in this session are refreshed.
    session.scalars(select(Activity).where(Activity.id.in_(ids)).execution_options(populate_existing=True)).all()
    return ids
