"""Questions about visits: how many a campaign brought, from where, to which pages."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from operator import add
from typing import Any

from sqlalchemy import (
    BigInteger,
    CompoundSelect,
    Row,
    Select,
    SmallInteger,
    String,
    cast,
    func,
    null,
    select,
    union_all,
)
from sqlalchemy.orm import Session

from campaigns.accounts.actor import Actor, Permission
from campaigns.audience.models import Contact
from campaigns.i18n import N_
from campaigns.planning.campaigns import campaign_of
from campaigns.planning.models import Activity
from tracking.channels.channel_groups import ChannelGroup
from tracking.counters import daily
from tracking.counters.periods import Window
from tracking.metrics import counts
from tracking.metrics.counts import ActivityCounts
from tracking.models.events import TrafficLabel
from tracking.models.visits import (
    Device,
    DeviceCountryCounts,
    LandingPageCounts,
    SiteLastSeen,
    TrafficSource,
    Visit,
    WebPage,
)


@dataclass(frozen=True, slots=True)
class VisitSummary:
    """Visits of people; those of programs are left out."""

    visits: int = 0
    visitors: int = 0
    """Of this activity: whoever came by two activities is one of each."""
    engaged: int = 0
    active_seconds: int = 0
    pages: int = 0
    new: int = 0
    campaign_visitors: int = 0
    """Whose first visit of the whole campaign this activity brought: these add up to the campaign's visitors."""
    aggregate: int = 0
    """How many of the visits are counted without a visitor."""

    @property
    def counts(self) -> ActivityCounts:
        """What the registry's metrics of visits are made of: the campaign's."""
        kept = counts.VisitCounts(
            self.visits, self.campaign_visitors, self.engaged, self.active_seconds, self.pages, self.new
        )
        return ActivityCounts(visits=kept)

    def __add__(self, other: "VisitSummary") -> "VisitSummary":
        """Of two activities of a campaign together; their visitors are those of the campaign."""
        return VisitSummary(*(getattr(self, name) + getattr(other, name) for name in COUNTS))


COUNTS = ("visits", "visitors", "engaged", "active_seconds", "pages", "new", "campaign_visitors", "aggregate")


def visit_counts(
    session: Session, campaign_ids: Collection[int], *, since: datetime | None = None, until: datetime | None = None
) -> Mapping[int, VisitSummary]:
    """Visits by activity of these campaigns, those that began from ``since`` on and before ``until``, in
    one query of the rollups. A campaign's unique visitors are the sum of ``campaign_visitors``."""
    of, at = daily.visits(session, Window(since, until))
    sums = (cast(func.sum(getattr(of, name)), BigInteger) for name in COUNTS)
    query = (
        select(of.activity_id, *sums)
        .join(Activity, Activity.id == of.activity_id)
        .where(Activity.campaign_id.in_(campaign_ids), of.label == TrafficLabel.HUMAN)
        .group_by(of.activity_id)
    )
    if since is not None:
        query = query.where(at >= since)
    if until is not None:
        query = query.where(at < until)
    return {activity_id: VisitSummary(*counts) for activity_id, *counts in session.execute(query)}


@dataclass(frozen=True, slots=True)
class BreakdownRow:
    """Visits that have something in common."""

    name: str
    """What it is called: an address, a host, a country's code, or a msgid."""
    visits: int
    engaged: int
    active_seconds: int
    of: str = ""
    """Of a landing page: where the visits to it came from."""

    @property
    def counts(self) -> ActivityCounts:
        """What the registry's metrics of visits are made of."""
        kept = counts.VisitCounts(visits=self.visits, engaged=self.engaged, active_seconds=self.active_seconds)
        return ActivityCounts(visits=kept)


@dataclass(frozen=True, slots=True)
class VisitBreakdown:
    """A campaign's visits by people, looked at from several sides, the most visits first. Those that left only a count
    stand in ``total`` and ``by_activity`` alone."""

    total: VisitSummary
    by_activity: Sequence[tuple[str, VisitSummary]]
    by_group: Sequence[BreakdownRow]
    pages: Sequence[BreakdownRow]
    """Landing pages by the network or the site that led there."""
    by_device: Sequence[BreakdownRow]
    by_country: Sequence[BreakdownRow]


MOST_LINES = 20


def breakdown(session: Session, actor: Actor, campaign_id: int) -> VisitBreakdown:
    """Raises NotFound."""
    actor.require(Permission.VIEW)
    campaign_of(session, campaign_id)
    titles = dict(session.execute(select(Activity.id, Activity.title).where(Activity.campaign_id == campaign_id)).all())
    by_activity = visit_counts(session, [campaign_id])
    groups, devices, countries = dict[str, list[int]](), dict[str, list[int]](), dict[str, list[int]]()
    for group, device, country, *more in session.execute(_sides(list(titles))):
        for sums, name in (
            ((groups, ChannelGroup(group).label),)
            if group is not None
            else ((devices, Device(device).label), (countries, country))
        ):
            sums[name] = list(map(add, sums.get(name, (0, 0, 0)), more))
    return VisitBreakdown(
        total=sum(by_activity.values(), VisitSummary()),
        by_activity=[(titles[id], one) for id, one in sorted(by_activity.items(), key=lambda entry: -entry[1].visits)],
        by_group=_lines(groups),
        pages=[
            BreakdownRow(host + path, visits, engaged, active_seconds, came_from or N_("No referrer"))
            for host, path, came_from, visits, engaged, active_seconds in session.execute(_landing_pages(list(titles)))
        ],
        by_device=_lines(devices),
        by_country=_lines(countries),
    )


def _sums(of: type[LandingPageCounts] | type[DeviceCountryCounts]) -> list[Any]:
    return [cast(func.sum(column), BigInteger) for column in (of.visits, of.engaged, of.active_seconds)]


def _sides(activity_ids: Sequence[int]) -> CompoundSelect[Any]:
    """By channel group, and by device and country: what isn't asked of a row is None."""
    by_group = (
        select(TrafficSource.channel_group, cast(null(), SmallInteger), cast(null(), String), *_sums(LandingPageCounts))
        .join(TrafficSource, TrafficSource.id == LandingPageCounts.traffic_source_id)
        .where(LandingPageCounts.activity_id.in_(activity_ids))
        .group_by(TrafficSource.channel_group)
    )
    by_place = (
        select(
            cast(null(), SmallInteger),
            DeviceCountryCounts.device,
            DeviceCountryCounts.country,
            *_sums(DeviceCountryCounts),
        )
        .where(DeviceCountryCounts.activity_id.in_(activity_ids))
        .group_by(DeviceCountryCounts.device, DeviceCountryCounts.country)
    )
    return union_all(by_group, by_place)


def _landing_pages(activity_ids: Sequence[int]) -> Select[*tuple[Any, ...]]:
    """The most visited, by where visits to them came from; they get their words when they are few."""
    came_from = func.coalesce(
        *(func.nullif(name, "") for name in (TrafficSource.network, TrafficSource.referrer)), TrafficSource.source
    )
    counts = [
        one.label(name)
        for one, name in zip(_sums(LandingPageCounts), ("visits", "engaged", "active_seconds"), strict=True)
    ]
    most = (
        select(LandingPageCounts.entry_id, came_from.label("came_from"), *counts)
        .join(TrafficSource, TrafficSource.id == LandingPageCounts.traffic_source_id)
        .where(LandingPageCounts.activity_id.in_(activity_ids))
        .group_by(LandingPageCounts.entry_id, came_from)
        .order_by(counts[0].desc(), LandingPageCounts.entry_id, came_from)
        .limit(MOST_LINES)
        .subquery()
    )
    kept = most.c
    return (
        select(WebPage.host, WebPage.path, kept.came_from, kept.visits, kept.engaged, kept.active_seconds)
        .join(WebPage, WebPage.id == kept.entry_id)
        .order_by(kept.visits.desc(), WebPage.host, WebPage.path, kept.came_from)
    )


def _lines(side: Mapping[str, Sequence[int]]) -> list[BreakdownRow]:
    found = [BreakdownRow(name, counts[0], counts[1], counts[2]) for name, counts in side.items()]
    return sorted(found, key=lambda line: (-line.visits, line.name))[:MOST_LINES]


NEWEST_FIRST = (Visit.started_at.desc(), Visit.id.desc())


def visits_like(actor: Actor, activity_ids: Collection[int]) -> Select[int]:
    """The numbers of single visits, without an order: for those only who may see people. Numbers alone, so that an
    index puts a campaign's two hundred thousand in order without looking at one of them."""
    actor.require(Permission.PERSONAL)
    return select(Visit.id).where(Visit.activity_id.in_(activity_ids))


def visits_of(session: Session, actor: Actor, ids: Sequence[int]) -> Sequence[Row[Any]]:
    """Visits as (Visit, WebPage, WebArrival, email), in the order of their numbers given."""
    actor.require(Permission.PERSONAL)
    query = (
        select(Visit, WebPage, TrafficSource, Contact.email.label("email"))
        .join(WebPage, WebPage.id == Visit.entry_id)
        .join(TrafficSource, TrafficSource.id == Visit.traffic_source_id)
        .outerjoin(Contact, Contact.id == Visit.contact_id)
        .where(Visit.id.in_(ids))
    )
    return sorted(session.execute(query), key=lambda row: ids.index(row.Visit.id))


def sites(session: Session) -> Mapping[str, SiteLastSeen]:
    """The sites whose pages were heard of, by host."""
    return {site.host: site for site in session.scalars(select(SiteLastSeen))}
