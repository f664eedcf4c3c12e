"""Queries for web visits of a campaign: totals, breakdowns by source, page, device and country, and single visits."""

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
from campaigns.planning.campaigns import get_campaign
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
    """Totals of human visits; visits by programs are left out. ``active_seconds`` is in seconds."""

    visits: int = 0
    visitors: int = 0
    """Distinct visitors of this activity. A visitor who came through two activities is counted for both."""
    engaged: int = 0
    active_seconds: int = 0
    pages: int = 0
    new: int = 0
    campaign_visitors: int = 0
    """Visitors whose first visit of the campaign this activity brought. They add up to the campaign's visitors."""
    aggregate: int = 0
    """Visits that were only counted, without a visitor id."""

    @property
    def counts(self) -> ActivityCounts:
        """The same totals as counts for the metric registry; ``visitors`` are those of the campaign."""
        totals = counts.VisitCounts(
            self.visits, self.campaign_visitors, self.engaged, self.active_seconds, self.pages, self.new
        )
        return ActivityCounts(visits=totals)

    def __add__(self, other: "VisitSummary") -> "VisitSummary":
        """Add two activities of one campaign; only ``campaign_visitors`` counts each visitor once."""
        return VisitSummary(*(getattr(self, name) + getattr(other, name) for name in SUMMED_FIELDS))


SUMMED_FIELDS = ("visits", "visitors", "engaged", "active_seconds", "pages", "new", "campaign_visitors", "aggregate")


def visit_counts(
    session: Session, campaign_ids: Collection[int], *, since: datetime | None = None, until: datetime | None = None
) -> Mapping[int, VisitSummary]:
    """Return human visits per activity id of these campaigns, read from the rollups in one query.

    Counts visits that began at or after ``since`` and before ``until``. A campaign's unique visitors are the sum of
    ``campaign_visitors``.
    """
    rollup, at = daily.visit_source(session, Window(since, until))
    sums = (cast(func.sum(getattr(rollup, name)), BigInteger) for name in SUMMED_FIELDS)
    query = (
        select(rollup.activity_id, *sums)
        .join(Activity, Activity.id == rollup.activity_id)
        .where(Activity.campaign_id.in_(campaign_ids), rollup.label == TrafficLabel.HUMAN)
        .group_by(rollup.activity_id)
    )
    if since is not None:
        query = query.where(at >= since)
    if until is not None:
        query = query.where(at < until)
    return {activity_id: VisitSummary(*counts) for activity_id, *counts in session.execute(query)}


@dataclass(frozen=True, slots=True)
class BreakdownRow:
    """The visits of one group of a breakdown."""

    name: str
    """The group: a landing page's address, a country code, or a msgid (channel group, device)."""
    visits: int
    engaged: int
    active_seconds: int
    came_from: str = ""
    """For landing pages: the network, referring host or source that the visits came from."""

    @property
    def counts(self) -> ActivityCounts:
        """The same numbers as counts for the metric registry."""
        totals = counts.VisitCounts(visits=self.visits, engaged=self.engaged, active_seconds=self.active_seconds)
        return ActivityCounts(visits=totals)


@dataclass(frozen=True, slots=True)
class VisitBreakdown:
    """A campaign's human visits by several dimensions, most visits first.

    Visits that were only counted (``aggregate``) are included in ``total`` and ``by_activity`` only.
    """

    total: VisitSummary
    by_activity: Sequence[tuple[str, VisitSummary]]
    by_group: Sequence[BreakdownRow]
    pages: Sequence[BreakdownRow]
    """Landing pages by the network or site that linked to them."""
    by_device: Sequence[BreakdownRow]
    by_country: Sequence[BreakdownRow]


MAX_ROWS = 20


def visit_breakdown(session: Session, actor: Actor, campaign_id: int) -> VisitBreakdown:
    """Return a campaign's human visits by activity, channel group, landing page, device and country.

    Lists except ``by_activity`` have at most 20 rows. Raises NotFound when there is no such campaign.
    """
    actor.require(Permission.VIEW)
    get_campaign(session, campaign_id)
    titles = dict(session.execute(select(Activity.id, Activity.title).where(Activity.campaign_id == campaign_id)).all())
    by_activity = visit_counts(session, [campaign_id])
    groups, devices, countries = dict[str, list[int]](), dict[str, list[int]](), dict[str, list[int]]()
    for group, device, country, *numbers in session.execute(_dimension_sums(list(titles))):
        for sums, name in (
            ((groups, ChannelGroup(group).label),)
            if group is not None
            else ((devices, Device(device).label), (countries, country))
        ):
            sums[name] = list(map(add, sums.get(name, (0, 0, 0)), numbers))
    return VisitBreakdown(
        total=sum(by_activity.values(), VisitSummary()),
        by_activity=[(titles[id], one) for id, one in sorted(by_activity.items(), key=lambda entry: -entry[1].visits)],
        by_group=_top_rows(groups),
        pages=[
            BreakdownRow(host + path, visits, engaged, active_seconds, came_from or N_("No referrer"))
            for host, path, came_from, visits, engaged, active_seconds in session.execute(_landing_pages(list(titles)))
        ],
        by_device=_top_rows(devices),
        by_country=_top_rows(countries),
    )


def _visit_sums(table: type[LandingPageCounts] | type[DeviceCountryCounts]) -> list[Any]:
    return [cast(func.sum(column), BigInteger) for column in (table.visits, table.engaged, table.active_seconds)]


def _dimension_sums(activity_ids: Sequence[int]) -> CompoundSelect[Any]:
    """Select sums by channel group and sums by device and country in one statement.

    Rows are ``(group, device, country, visits, engaged, active_seconds)``: the first kind has no device and country,
    the second no group.
    """
    by_group = (
        select(
            TrafficSource.channel_group,
            cast(null(), SmallInteger),
            cast(null(), String),
            *_visit_sums(LandingPageCounts),
        )
        .join(TrafficSource, TrafficSource.id == LandingPageCounts.traffic_source_id)
        .where(LandingPageCounts.activity_id.in_(activity_ids))
        .group_by(TrafficSource.channel_group)
    )
    by_device_country = (
        select(
            cast(null(), SmallInteger),
            DeviceCountryCounts.device,
            DeviceCountryCounts.country,
            *_visit_sums(DeviceCountryCounts),
        )
        .where(DeviceCountryCounts.activity_id.in_(activity_ids))
        .group_by(DeviceCountryCounts.device, DeviceCountryCounts.country)
    )
    return union_all(by_group, by_device_country)


def _landing_pages(activity_ids: Sequence[int]) -> Select[*tuple[Any, ...]]:
    """Select the most visited pairs of landing page and source. Page addresses are joined after the LIMIT."""
    came_from = func.coalesce(
        *(func.nullif(name, "") for name in (TrafficSource.network, TrafficSource.referrer)), TrafficSource.source
    )
    counts = [
        one.label(name)
        for one, name in zip(_visit_sums(LandingPageCounts), ("visits", "engaged", "active_seconds"), strict=True)
    ]
    top_pages = (
        select(LandingPageCounts.entry_id, came_from.label("came_from"), *counts)
        .join(TrafficSource, TrafficSource.id == LandingPageCounts.traffic_source_id)
        .where(LandingPageCounts.activity_id.in_(activity_ids))
        .group_by(LandingPageCounts.entry_id, came_from)
        .order_by(counts[0].desc(), LandingPageCounts.entry_id, came_from)
        .limit(MAX_ROWS)
        .subquery()
    )
    top_columns = top_pages.c
    return (
        select(
            WebPage.host,
            WebPage.path,
            top_columns.came_from,
            top_columns.visits,
            top_columns.engaged,
            top_columns.active_seconds,
        )
        .join(WebPage, WebPage.id == top_columns.entry_id)
        .order_by(top_columns.visits.desc(), WebPage.host, WebPage.path, top_columns.came_from)
    )


def _top_rows(sums: Mapping[str, Sequence[int]]) -> list[BreakdownRow]:
    rows = [BreakdownRow(name, counts[0], counts[1], counts[2]) for name, counts in sums.items()]
    return sorted(rows, key=lambda line: (-line.visits, line.name))[:MAX_ROWS]


NEWEST_FIRST = (Visit.started_at.desc(), Visit.id.desc())


def visit_ids(actor: Actor, activity_ids: Collection[int]) -> Select[int]:
    """Select the ids of single visits without an order. Requires permission to see personal data.

    Only ids are selected, so that a campaign's 200,000 visits are sorted in an index and the rows are not read.
    """
    actor.require(Permission.PERSONAL)
    return select(Visit.id).where(Visit.activity_id.in_(activity_ids))


def visits_by_id(session: Session, actor: Actor, ids: Sequence[int]) -> Sequence[Row[Any]]:
    """Return rows ``(Visit, WebPage, TrafficSource, email)`` in the order of the given ids; ``email`` may be None."""
    actor.require(Permission.PERSONAL)
    query = (
        select(Visit, WebPage, TrafficSource, Contact.email.label("email"))
        .join(WebPage, WebPage.id == Visit.entry_id)
        .join(TrafficSource, TrafficSource.id == Visit.traffic_source_id)
        .outerjoin(Contact, Contact.id == Visit.contact_id)
        .where(Visit.id.in_(ids))
    )
    return sorted(session.execute(query), key=lambda row: ids.index(row.Visit.id))


def last_seen_sites(session: Session) -> Mapping[str, SiteLastSeen]:
    """Return the sites whose page script has reported, by host."""
    return {site.host: site for site in session.scalars(select(SiteLastSeen))}
