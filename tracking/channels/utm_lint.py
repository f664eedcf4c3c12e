"""Visits whose links break the UTM rule, and which link to mend so that the next ones don't.

The rule itself stands in :mod:`campaigns.planning.utm`; what it forbids is asked in SQL here once more, so that a
page of breaches costs no look at every visit's words. Upper case is no breach here: visits are kept in lower case.
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
    """What kind of link brought the visits."""

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
    """The link to mend: ``name`` is its own; ``activity`` is where links are made anew, None for nobody's."""

    culprit: LinkKind
    name: str
    activity: Activity | None


@dataclass(frozen=True, slots=True)
class UtmViolation:
    """Visits of one arrival and activity. ``faults`` are names of UTM fields; ``rule`` is what they should say."""

    visits: int
    last_at: datetime
    values: Mapping[str, str]
    faults: Sequence[str]
    lost: bool
    """Whether the words fit no activity of ours, so that no campaign's figures count the visits."""
    mend: LinkFix
    rule: Mapping[str, str]


_Way = tuple[TrafficParameters, int]
"""What an address says, and the number of an activity; 0 for none."""


def breaches(actor: Actor, since: datetime, campaign: Campaign | None = None) -> tuple[Select[Any], list[Any]]:
    """(traffic_source_id, activity_id, visits, last_at) of visits since then that break the rule, and the keys of their
    order: the most visits first. Of a campaign: those that its activities brought or that name it."""
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
    """The arrivals whose own words break the rule, or name a campaign while no activity fits them."""
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
    """Whether the address said it: neither a referrer, nor a click id, nor a mail's token, nor nothing at all."""
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
    """What is wrong with these rows of :func:`breaches`, in four queries for all of them."""
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
    """Links that were made here, by what a visit that comes by them says: all of these activities, and any other
    whose address brings UTM words of its own, which may have led its visits astray."""
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
    """Under its own activity, and for visits of which no activity is known."""
    says = _says(url)
    for activity_id in (mend.activity.id if mend.activity else 0, 0):
        found.setdefault((says, activity_id), mend)


def _says(url: str) -> TrafficParameters:
    try:
        return arrival_of(dict(parse_qsl(urlsplit(url).query)), "")
    except ValueError:
        return TrafficParameters()
