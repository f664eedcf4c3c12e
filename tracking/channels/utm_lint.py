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
from tracking.channels.channel_groups import CLICK_SOURCES, TrafficParameters, arrival_of
from tracking.models.events import TrafficLabel
from tracking.models.visits import TrafficSource, Visit

_MOST_LINKS = 2_000


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

    culprit: LinkKind
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
    faults: Sequence[str]
    lost: bool
    """Whether the values match no activity, so that no campaign counts the visits."""
    mend: LinkFix
    rule: Mapping[str, str]


_Way = tuple[TrafficParameters, int]
"""Source of a visit and an activity id; 0 for no activity."""


def breaches(actor: Actor, since: datetime, campaign: Campaign | None = None) -> tuple[Select[Any], list[Any]]:
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
        .where(Visit.started_at >= since, Visit.label == TrafficLabel.HUMAN, broken())
        .group_by(Visit.traffic_source_id, activity_id)
    )
    if campaign is not None:
        ours = select(Activity.id).where(Activity.campaign_id == campaign.id)
        names_it = or_(TrafficSource.utm_id == str(campaign.id), TrafficSource.campaign == utm.word(campaign.name))
        query = query.where(or_(Visit.activity_id.in_(ours), and_(Visit.activity_id.is_(None), names_it)))
    found = query.subquery()
    return select(found), [found.c.visits.desc(), found.c.traffic_source_id, found.c.activity_id]


def broken() -> ColumnElement[bool]:
    """Condition for sources whose UTM values violate the rule, or name a campaign without matching an activity."""
    kept = TrafficSource
    words = (kept.source, kept.medium, kept.campaign, kept.content)
    against_rule = or_(
        kept.source == "",
        kept.medium.not_in(utm.MEDIUM.values()),
        and_(kept.campaign == "", kept.utm_id == ""),
        *(word.contains(sign, autoescape=True) for word in words for sign in utm.SPLITTING),
    )
    lost = and_(Visit.activity_id.is_(None), or_(kept.campaign != "", kept.utm_id != ""))
    return and_(_has_words_of_its_own(), or_(against_rule, lost))


def _has_words_of_its_own() -> ColumnElement[bool]:
    """Whether the URL itself stated the source. Excludes sources derived from a referrer, a click id or a mail's visit
    token, and visits without any source.
    """
    kept = TrafficSource
    named = or_(kept.campaign != "", kept.utm_id != "", kept.content != "", kept.term != "")
    told = or_(kept.source != "", kept.medium != "")
    derived = or_(
        kept.source == kept.referrer,
        *(and_(kept.source == source, kept.medium == medium) for source, medium in sorted(CLICK_SOURCES)),
        and_(kept.source == "email", kept.medium == "email"),
    )
    return or_(named, and_(told, ~derived))


def explained(session: Session, rows: Sequence[Any]) -> list[UtmViolation]:
    """The violations in rows of :func:`violations_query`, with four queries in total."""
    arrivals = {one.id: one for one in session.scalars(_rows(TrafficSource, {row.traffic_source_id for row in rows}))}
    activities = {one.id: one for one in session.scalars(_rows(Activity, {row.activity_id for row in rows}))}
    made = _made_links(session, activities) if rows else {}
    return [
        _breach(row.visits, row.last_at, arrivals[row.traffic_source_id], activities.get(row.activity_id), made)
        for row in rows
    ]


def _rows(model: Any, ids: set[int]) -> Select[Any]:
    return select(model).where(model.id.in_(ids))


def _breach(
    visits: int, last_at: datetime, kept: TrafficSource, activity: Activity | None, made: Mapping["_Way", LinkFix]
) -> UtmViolation:
    arrival = TrafficParameters(kept.source, kept.medium, kept.campaign, kept.term, kept.content, kept.utm_id)
    values = {f"utm_{name}": getattr(kept, name) for name in ("source", "medium", "campaign", "content")}
    values["utm_id"] = kept.utm_id
    values = {name: value for name, value in values.items() if value}
    mend = made.get((arrival, activity.id if activity else 0)) or made.get((arrival, 0))
    if mend is None:
        culprit = LinkKind.ACTIVITY if activity else LinkKind.FOREIGN
        mend = LinkFix(culprit, kept.referrer or kept.source, activity)
    lost = activity is None and bool(kept.campaign or kept.utm_id)
    rule = utm.rule(mend.activity, kept.content) if mend.activity else {}
    return UtmViolation(visits, last_at, values, utm.breaches(values), lost, mend, rule)


def _made_links(session: Session, activities: Mapping[int, Activity]) -> dict["_Way", LinkFix]:
    """Links created here, by the source that their visits report: all links of these activities, and all others whose
    URL has UTM parameters of its own, which may have misattributed visits.
    """
    short = (
        select(ShortLink.url, ShortLink.utm, ShortLink.label, Activity)
        .join(Activity, Activity.id == ShortLink.activity_id)
        .where(or_(ShortLink.activity_id.in_(activities), ShortLink.url.contains("utm_", autoescape=True)))
        .order_by(ShortLink.id.desc())
    )
    leads_to = func.coalesce(LinkOverride.url, Link.url)
    mailed = (
        select(leads_to, Link.label, Activity)
        .join(EmailDetails, EmailDetails.version_id == Link.version_id)
        .join(Activity, Activity.id == EmailDetails.activity_id)
        .outerjoin(LinkOverride, and_(LinkOverride.activity_id == Activity.id, LinkOverride.number == Link.number))
        .where(leads_to.contains("utm_", autoescape=True))
        .order_by(Activity.id.desc(), Link.number)
    )
    found: dict[_Way, LinkFix] = {}
    for url, added, label, activity in session.execute(short.limit(_MOST_LINKS)):
        _put(found, utm.joined(url, added), LinkFix(LinkKind.SHORT, label, activity))
    for url, label, activity in session.execute(mailed.limit(_MOST_LINKS)):
        _put(found, url, LinkFix(LinkKind.MAIL, label or url, activity))
    return found


def _put(found: dict["_Way", LinkFix], url: str, mend: LinkFix) -> None:
    """Register a link under its own activity and, for visits without a known activity, under 0."""
    says = _says(url)
    for activity_id in (mend.activity.id if mend.activity else 0, 0):
        found.setdefault((says, activity_id), mend)


def _says(url: str) -> TrafficParameters:
    try:
        return arrival_of(dict(parse_qsl(urlsplit(url).query)), "")
    except ValueError:
        return TrafficParameters()
