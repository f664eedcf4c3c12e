"""To-do list of the start page: reviews, due launches, paused launches, unresolved sends, new leads, imports."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from zoneinfo import ZoneInfo

from sqlalchemy import ColumnElement, Select, func, or_, select
from sqlalchemy.orm import Session, contains_eager

from campaigns import clock
from campaigns.accounts.actor import Actor, Permission
from campaigns.accounts.models import Organisation
from campaigns.audience.models import Contact, ContactImport, ImportState
from campaigns.delivery.bounces.effects import circuit_breaker
from campaigns.delivery.models import Send, SendState
from campaigns.leads.models import Lead, LeadStage
from campaigns.planning.models import Activity, ActivityStatus, Campaign, CampaignStatus

SOON = timedelta(days=7)
_RECENT = timedelta(days=30)
_MAX_ROWS = 6
_OPEN_STATUSES = (CampaignStatus.PLANNED, CampaignStatus.ACTIVE, CampaignStatus.PAUSED)


@dataclass(frozen=True, slots=True)
class UnresolvedSends:
    """Number of sends of one activity in a state (unknown, held) that needs a person's decision."""

    activity_id: int
    title: str
    state: SendState
    count: int


@dataclass(frozen=True, slots=True)
class TodoList:
    """Open tasks of one user. What the user's role does not allow is empty or false."""

    address_missing: bool
    contacts_missing: bool
    campaigns_missing: bool
    reviews: Sequence[Activity]
    due_to_start: Sequence[Activity]
    """Activities that are not launched although their first day is past or within a week."""
    tripped: Sequence[tuple[Activity, circuit_breaker.BounceRates]]
    """Launches that the circuit breaker paused, with the rates that tripped it."""
    unresolved: Sequence[UnresolvedSends]
    new_leads: int
    """New leads of the user or without an owner; counted up to 100."""
    imports: Sequence[ContactImport]

    @property
    def is_empty(self) -> bool:
        first = self.address_missing or self.contacts_missing or self.campaigns_missing
        waiting = self.tripped or self.reviews or self.due_to_start or self.unresolved or self.new_leads or self.imports
        return not (first or waiting)


def build_todo_list(session: Session, actor: Actor, zone: ZoneInfo) -> TodoList:
    """Return the open tasks of this user, in at most ten queries, each with a LIMIT."""
    actor.require(Permission.VIEW)
    sees_contacts, may_plan = actor.may(Permission.PERSONAL), actor.may(Permission.PLAN)
    organisation = session.get(Organisation, 1)
    return TodoList(
        address_missing=actor.may(Permission.SETTINGS)
        and organisation is not None
        and not organisation.postal_address.strip(),
        contacts_missing=may_plan and session.scalar(select(Contact.id).limit(1)) is None,
        campaigns_missing=may_plan and session.scalar(_campaigns().limit(1)) is None,
        reviews=_activities(session, Activity.status == ActivityStatus.REVIEW) if actor.may(Permission.LAUNCH) else [],
        due_to_start=_due_to_start(session, zone) if may_plan else [],
        tripped=_tripped(session) if actor.may(Permission.LAUNCH) else [],
        unresolved=_unresolved_sends(session),
        new_leads=_new_leads(session, actor) if sees_contacts else 0,
        imports=_imports(session) if sees_contacts else [],
    )


def _campaigns() -> Select[int]:
    return select(Campaign.id).where(Campaign.built_in.is_(False))


def _activities(session: Session, condition: ColumnElement[bool]) -> Sequence[Activity]:
    query = (
        select(Activity)
        .join(Activity.campaign)
        .where(condition, Campaign.built_in.is_(False), Campaign.status.in_(_OPEN_STATUSES))
        .options(contains_eager(Activity.campaign))
        .order_by(Activity.starts_on, Activity.id)
        .limit(_MAX_ROWS)
    )
    return session.scalars(query).all()


def _due_to_start(session: Session, zone: ZoneInfo) -> Sequence[Activity]:
    until = clock.now().astimezone(zone).date() + SOON
    ready = Activity.status.in_((ActivityStatus.DRAFT, ActivityStatus.APPROVED))
    return _activities(session, ready & (Activity.starts_on <= until))


def _tripped(session: Session) -> Sequence[tuple[Activity, circuit_breaker.BounceRates]]:
    paused = _activities(session, (Activity.status == ActivityStatus.PAUSED) & Activity.launched_at.is_not(None))
    rates_by_activity = circuit_breaker.trip_rates_by_activity(session, [one.id for one in paused]) if paused else {}
    return [(one, rates_by_activity[one.id]) for one in paused if one.id in rates_by_activity]


def _unresolved_sends(session: Session) -> Sequence[UnresolvedSends]:
    """Count unresolved sends of the newest 50 launches; each activity is one range of the index on sends."""
    launched = session.execute(
        select(Activity.id, Activity.title)
        .join(Activity.campaign)
        .where(Activity.launched_at >= clock.now() - _RECENT, Campaign.built_in.is_(False))
        .order_by(Activity.launched_at.desc())
        .limit(50)
    ).all()
    titles = {row.id: row.title for row in launched}
    query = (
        select(Send.activity_id, Send.state, func.count())
        .where(Send.activity_id.in_(titles), Send.state.in_((SendState.UNKNOWN, SendState.HELD)))
        .group_by(Send.activity_id, Send.state)
        .order_by(Send.activity_id, Send.state)
        .limit(_MAX_ROWS)
    )
    return [UnresolvedSends(id, titles[id], state, count) for id, state, count in session.execute(query)]


def _new_leads(session: Session, actor: Actor) -> int:
    mine = or_(Lead.owner_id.is_(None), Lead.owner_id == actor.id)
    new_leads = select(Lead.id).where(Lead.stage == LeadStage.NEW, Lead.closed_at.is_(None), mine).limit(100).subquery()
    return session.scalar(select(func.count()).select_from(new_leads)) or 0


def _imports(session: Session) -> Sequence[ContactImport]:
    waiting = ContactImport.state.in_((ImportState.UPLOADED, ImportState.CHECKED))
    return session.scalars(
        select(ContactImport).where(waiting).order_by(ContactImport.id.desc()).limit(_MAX_ROWS)
    ).all()
