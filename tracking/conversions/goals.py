"""Conversion goals: creation, changes, and the patterns that reach them.

The goal "lead" is built in; the goals here count pages, custom events, forms and lead stages.
"""

import re
from collections.abc import Sequence
from datetime import datetime
from decimal import Decimal
from fnmatch import translate
from functools import lru_cache

from sqlalchemy import or_, select, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from campaigns import clock
from campaigns.accounts import audit
from campaigns.accounts.actor import Actor, Permission
from campaigns.accounts.validation import FieldValidator
from campaigns.errors import NotFound, ValidationFailed, ValidationProblem
from campaigns.i18n import N_
from campaigns.leads.models import LeadStage
from campaigns.planning.models import Activity, Campaign
from tracking.models.conversions import LEAD_GOAL, CustomEvent, Goal, GoalKind

_KEY = re.compile(r"[a-z][a-z0-9_-]{0,39}")
EVENT_NAME = re.compile(r"[\w.: -]{1,80}")
MAX_AMOUNT = Decimal("999999999999.99")
"""The largest value that the NUMERIC(14, 2) money columns hold."""


def create_goal(
    session: Session,
    actor: Actor,
    *,
    key: str,
    name: str,
    kind: GoalKind,
    match: str,
    campaign_id: int | None = None,
    once: bool = True,
    value: Decimal | None = None,
    since: datetime | None = None,
) -> Goal:
    """Create a goal that counts from ``since`` on, by default from now.

    Only a goal of custom events may start in the past; events reported since then are matched again.
    Raises ValidationFailed with the invalid fields.
    """
    actor.require(Permission.PLAN)
    validator, now = FieldValidator(), clock.now()
    goal = Goal(
        key=key.strip().lower(),
        name=validator.name("name", name),
        kind=GoalKind(kind),
        match=match.strip(),
        campaign_id=campaign_id,
        once=once,
        value=value,
        active=True,
        since=since or now,
        created_at=now,
    )
    if goal.since > now:
        validator.add_problem("since", N_("This day is still to come."))
    if goal.since < now and goal.kind is not GoalKind.EVENT:
        validator.add_problem("since", N_("Only what is reported by name can count from an earlier day."))
    if not _KEY.fullmatch(goal.key) or goal.key == LEAD_GOAL:
        validator.add_problem("key", N_("A short name of small letters, digits, - and _, beginning with a letter."))
    _validate(session, validator, goal)
    validator.raise_problems()
    try:
        with session.begin_nested():
            session.add(goal)
    except IntegrityError as error:
        raise ValidationFailed(ValidationProblem(N_("Another goal has this key already."), field="key")) from error
    if goal.since < now:
        _requeue_past_events(session, goal)
    audit.record(session, actor, "create", "goal", goal.id, key=goal.key)
    return goal


def _requeue_past_events(session: Session, goal: Goal) -> None:
    """Flag events reported before the goal was created as unprocessed.

    Other goals don't count them twice, since a conversion's external id is unique.
    """
    conditions = CustomEvent.name.in_((goal.match, goal.key)), CustomEvent.at >= goal.since
    session.execute(update(CustomEvent).where(*conditions, CustomEvent.processed).values(processed=False))


def change_goal(session: Session, actor: Actor, goal: Goal, *, name: str, value: Decimal | None, active: bool) -> None:
    """Change name, value and whether the goal is active.

    What it matches can't be changed, so that figures of the past keep their meaning. Raises
    ValidationFailed.
    """
    actor.require(Permission.PLAN)
    validator = FieldValidator()
    goal.name, goal.value, goal.active = validator.name("name", name), value, active
    _validate_value(validator, value)
    validator.raise_problems()
    session.flush()
    audit.record(session, actor, "update", "goal", goal.id, active=active)


def get_goal(session: Session, goal_id: int) -> Goal:
    """The goal. Raises NotFound."""
    goal = session.get(Goal, goal_id)
    if goal is None:
        raise NotFound(N_("There is no such goal."))
    return goal


LEAD_NAME = N_("Lead")


def goal_names(session: Session) -> dict[str, str]:
    """The name of every goal by its key. The name of the built-in goal "lead" is a msgid to translate."""
    return {LEAD_GOAL: LEAD_NAME} | {row.key: row.name for row in session.execute(select(Goal.key, Goal.name))}


def form_titles(session: Session, goals: Sequence[Goal]) -> dict[str, str]:
    """Titles of the activities whose forms reach these goals, by ``Goal.match`` (the activity's id as text)."""
    activity_ids = [int(goal.match) for goal in goals if goal.kind is GoalKind.FORM and goal.match.isdecimal()]
    if not activity_ids:
        return {}
    titles = session.execute(select(Activity.id, Activity.title).where(Activity.id.in_(activity_ids)))
    return {str(number): title for number, title in titles}


def active_goals(session: Session, kind: GoalKind, *matches: str) -> Sequence[Goal]:
    """The active goals of a kind; with ``matches``, those whose pattern or key is one of them."""
    query = select(Goal).where(Goal.kind == kind, Goal.active).order_by(Goal.id)
    if matches:
        query = query.where(or_(Goal.match.in_(matches), Goal.key.in_(matches)))
    return session.scalars(query).all()


def goal_matches_page(goal: Goal, address: str) -> bool:
    """Whether a page's ``host/path`` matches the goal's pattern; see :func:`page_matches`."""
    return page_matches(goal.match, address)


def page_matches(match: str, address: str) -> bool:
    """Whether a page's ``host/path`` matches a pattern.

    A pattern that starts with "/" is compared with the path on any host. ``*`` matches any characters; a
    slash at the end is optional.
    """
    path = "/" + address.partition("/")[2]
    return bool(_compile_pattern(match).fullmatch(path if match.startswith("/") else address))


@lru_cache(maxsize=500)
def _compile_pattern(match: str) -> re.Pattern[str]:
    # Only * is a wildcard: ? and [ are escaped for fnmatch. \Z is dropped to append the optional slash.
    return re.compile(translate(re.sub(r"([\[?])", r"[\1]", match.rstrip("/") or "/")).replace(r"\Z", "") + r"/?")


def _validate(session: Session, validator: FieldValidator, goal: Goal) -> None:
    _validate_value(validator, goal.value)
    if goal.campaign_id is not None:
        campaign = session.get(Campaign, goal.campaign_id)
        if campaign is None or campaign.built_in:
            validator.add_problem("campaign_id", N_("There is no such campaign."))
    if len(goal.match) > 300 or not goal.match:
        validator.add_problem("match", N_("Say what reaches the goal, in at most 300 characters."))
    elif problem := _match_problem(session, goal):
        validator.add_problem("match", problem)


def _match_problem(session: Session, goal: Goal) -> str:
    if goal.kind is GoalKind.FORM:
        activity_id = int(goal.match) if goal.match.isdecimal() and len(goal.match) < 18 else 0
        return "" if session.get(Activity, activity_id) else N_("Choose the activity whose form it is.")
    if goal.kind is GoalKind.STAGE:
        return "" if goal.match in set(LeadStage) - {LeadStage.NEW} else N_("Choose a stage of leads.")
    if goal.kind is GoalKind.EVENT:
        return "" if EVENT_NAME.fullmatch(goal.match) else N_("An event's name has letters, digits and . : _ - only.")
    if goal.match.count("*") > 5 or " " in goal.match or "//" in goal.match:
        return N_("A path like /thanks or /shop/*, without https://, with at most five *.")
    return ""


def _validate_value(validator: FieldValidator, value: Decimal | None) -> None:
    if value is not None and not 0 <= value <= MAX_AMOUNT:
        validator.add_problem("value", N_("An amount from 0 to %(most)s."), most=MAX_AMOUNT)
