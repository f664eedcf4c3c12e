"""UTM lint: visits whose links violate the UTM rule, and the link to fix for each.

The rule is defined in :mod:`campaigns.planning.utm`. Its conditions are repeated here in SQL, so that the report does
not need to read every visit. Upper case is no violation here: visits are stored in lower case.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any
from urllib.parse import parse_qsl, urlsplit

from sqlalchemy import ColumnElement, Select, and_, func, or_, select
from sqlalchemy.orm import Session

from campaigns.accounts.actor import Actor, Permission
from campaigns.content.models import Link
from campaigns.i18n import N_
from campaigns.planning import utm
from campaigns.planning.models import Activity, Campaign, EmailDetails, LinkOverride, ShortLink
from tracking.channels.channel_groups import CLICK_SOURCES, TrafficParameters, parse_traffic_parameters
from tracking.models.events import TrafficLabel
from tracking.models.visits import TrafficSource, Visit

_MAX_LINKS = 2_000


class LinkKind(StrEnum):
    """Kind of the link that brought the visits."""

    SHORT = "short"
    MAIL = "mail"
    ACTIVITY = "activity"
    FOREIGN = "foreign"

    @property
    def label(self) -> str:
        return {
            self.SHORT: N_("Short link"),
            self.MAIL: N_("Link in a mail"),
            self.ACTIVITY: N_("A link of this activity that wasn't made here"),
            self.FOREIGN: N_("Somebody else's link"),
        }[self]


@dataclass(frozen=True, slots=True)
class LinkFix:
    """The link to fix: its name, and the activity where it can be created again (None for a foreign link)."""

    kind: LinkKind
    name: str
    activity: Activity | None


@dataclass(frozen=True, slots=True)
class UtmViolation:
    """Visits with the same source and activity that violate the rule. ``invalid_fields`` are UTM parameter names;
    ``rule`` holds the values that the rule demands.
    """

    visits: int
    last_at: datetime
    values: Mapping[str, str]
    invalid_fields: Sequence[str]
    is_unattributed: bool
    """Whether the values match no activity, so that no campaign counts the visits."""
    fix: LinkFix
    rule: Mapping[str, str]


_LinkKey = tuple[TrafficParameters, int]
"""Source of a visit and an activity id; 0 for no activity."""


def violations_query(actor: Actor, since: datetime, campaign: Campaign | None = None) -> tuple[Select[Any], list[Any]]:
    """Query for (arrival_id, activity_id, visits, last_at) of visits since then that violate the rule, and its sort
    keys: most visits first. With a campaign: visits that its activities brought or that name it.
    """
    actor.require(Permission.VIEW)
    activity_id = func.coalesce(Visit.activity_id, 0).label("activity_id")
    query = (
        select(
            Visit.traffic_source_id,
            activity_id,
            func.count().label("visits"),
            func.max(Visit.started_at).label("last_at"),
        )
        .join(TrafficSource, TrafficSource.id == Visit.traffic_source_id)
        .where(Visit.started_at >= since, Visit.label == TrafficLabel.HUMAN, violates_rule())
        .group_by(Visit.traffic_source_id, activity_id)
    )
    if campaign is not None:
        activity_ids = select(Activity.id).where(Activity.campaign_id == campaign.id)
        names_it = or_(TrafficSource.utm_id == str(campaign.id), TrafficSource.campaign == utm.slugify(campaign.name))
        query = query.where(or_(Visit.activity_id.in_(activity_ids), and_(Visit.activity_id.is_(None), names_it)))
    violations = query.subquery()
    return select(violations), [violations.c.visits.desc(), violations.c.traffic_source_id, violations.c.activity_id]


def violates_rule() -> ColumnElement[bool]:
    """Condition for sources whose UTM values violate the rule, or name a campaign without matching an activity."""
    arrival = TrafficSource
    values = (arrival.source, arrival.medium, arrival.campaign, arrival.content)
    against_rule = or_(
        arrival.source == "",
        arrival.medium.not_in(utm.MEDIUM_BY_CHANNEL.values()),
        and_(arrival.campaign == "", arrival.utm_id == ""),
        *(word.contains(sign, autoescape=True) for word in values for sign in utm.FORBIDDEN_SEPARATORS),
    )
    is_unattributed = and_(Visit.activity_id.is_(None), or_(arrival.campaign != "", arrival.utm_id != ""))
    return and_(_has_own_utm_values(), or_(against_rule, is_unattributed))


def _has_own_utm_values() -> ColumnElement[bool]:
    """Whether the URL itself stated the source. Excludes sources derived from a referrer, a click id or a mail's visit
    token, and visits without any source.
    """
    arrival = TrafficSource
    has_campaign = or_(arrival.campaign != "", arrival.utm_id != "", arrival.content != "", arrival.term != "")
    has_source = or_(arrival.source != "", arrival.medium != "")
    derived = or_(
        arrival.source == arrival.referrer,
        *(and_(arrival.source == source, arrival.medium == medium) for source, medium in sorted(CLICK_SOURCES)),
        and_(arrival.source == "email", arrival.medium == "email"),
    )
    return or_(has_campaign, and_(has_source, ~derived))


def explain_violations(session: Session, rows: Sequence[Any]) -> list[UtmViolation]:
    """The violations in rows of :func:`violations_query`, with four queries in total."""
    arrivals = {
        one.id: one for one in session.scalars(_select_by_id(TrafficSource, {row.traffic_source_id for row in rows}))
    }
    activities = {one.id: one for one in session.scalars(_select_by_id(Activity, {row.activity_id for row in rows}))}
    own_links = _own_links(session, activities) if rows else {}
    return [
        _violation(row.visits, row.last_at, arrivals[row.traffic_source_id], activities.get(row.activity_id), own_links)
        for row in rows
    ]


def _select_by_id(model: Any, ids: set[int]) -> Select[Any]:
    return select(model).where(model.id.in_(ids))


def _violation(
    visits: int,
    last_at: datetime,
    stored: TrafficSource,
    activity: Activity | None,
    own_links: Mapping["_LinkKey", LinkFix],
) -> UtmViolation:
    arrival = TrafficParameters(
        stored.source, stored.medium, stored.campaign, stored.term, stored.content, stored.utm_id
    )
    values = {f"utm_{name}": getattr(stored, name) for name in ("source", "medium", "campaign", "content")}
    values["utm_id"] = stored.utm_id
    values = {name: value for name, value in values.items() if value}
    fix = own_links.get((arrival, activity.id if activity else 0)) or own_links.get((arrival, 0))
    if fix is None:
        culprit = LinkKind.ACTIVITY if activity else LinkKind.FOREIGN
        fix = LinkFix(culprit, stored.referrer or stored.source, activity)
    lost = activity is None and bool(stored.campaign or stored.utm_id)
    rule = utm.build_parameters(fix.activity, stored.content) if fix.activity else {}
    return UtmViolation(visits, last_at, values, utm.rule_violations(values), lost, fix, rule)


def _own_links(session: Session, activities: Mapping[int, Activity]) -> dict["_LinkKey", LinkFix]:
    """Links created here, by the source that their visits report: all links of these activities, and all others whose
    URL has UTM parameters of its own, which may have misattributed visits.
    """
    short = (
        select(ShortLink.url, ShortLink.utm, ShortLink.label, Activity)
        .join(Activity, Activity.id == ShortLink.activity_id)
        .where(or_(ShortLink.activity_id.in_(activities), ShortLink.url.contains("utm_", autoescape=True)))
        .order_by(ShortLink.id.desc())
    )
    target_url = func.coalesce(LinkOverride.url, Link.url)
    mailed = (
        select(target_url, Link.label, Activity)
        .join(EmailDetails, EmailDetails.version_id == Link.version_id)
        .join(Activity, Activity.id == EmailDetails.activity_id)
        .outerjoin(LinkOverride, and_(LinkOverride.activity_id == Activity.id, LinkOverride.number == Link.number))
        .where(target_url.contains("utm_", autoescape=True))
        .order_by(Activity.id.desc(), Link.number)
    )
    found: dict[_LinkKey, LinkFix] = {}
    for url, added, label, activity in session.execute(short.limit(_MAX_LINKS)):
        _add_link(found, utm.append_query(url, added), LinkFix(LinkKind.SHORT, label, activity))
    for url, label, activity in session.execute(mailed.limit(_MAX_LINKS)):
        _add_link(found, url, LinkFix(LinkKind.MAIL, label or url, activity))
    return found


def _add_link(found: dict["_LinkKey", LinkFix], url: str, fix: LinkFix) -> None:
    """Register a link under its own activity and, for visits without a known activity, under 0."""
    parameters = _parameters_of_url(url)
    for activity_id in (fix.activity.id if fix.activity else 0, 0):
        found.setdefault((parameters, activity_id), fix)


def _parameters_of_url(url: str) -> TrafficParameters:
    try:
        return parse_traffic_parameters(dict(parse_qsl(urlsplit(url).query)), "")
    except ValueError:
        return TrafficParameters()
