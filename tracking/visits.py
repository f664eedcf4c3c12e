"""Questions about visits: how many a campaign brought, from where, to which pages."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import BigInteger, Select, case, cast, func, select
from sqlalchemy.orm import Session

from campaigns.accounts.actor import Actor, Permission
from campaigns.audience.models import Contact
from campaigns.language import N_
from campaigns.planning.campaigns import campaign_of
from campaigns.planning.models import Activity
from tracking import counts, day_counts
from tracking.counts import Counts
from tracking.grouping import Group
from tracking.models import Label
from tracking.periods import Window
from tracking.visit_models import Device, SiteSeen, Visit, WebArrival, WebPage


@dataclass(frozen=True, slots=True)
class Visits:
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
    def counts(self) -> Counts:
        """What the registry's metrics of visits are made of: the campaign's."""
        kept = counts.Visits(
            self.visits, self.campaign_visitors, self.engaged, self.active_seconds, self.pages, self.new
        )
        return Counts(visits=kept)

    def __add__(self, other: "Visits") -> "Visits":
        """Of two activities of a campaign together; their visitors are those of the campaign."""
        return Visits(*(getattr(self, name) + getattr(other, name) for name in COUNTS))


COUNTS = (
    "visits", "visitors", "engaged", "active_seconds", "pages", "new", "campaign_visitors", "aggregate"
)  # fmt: skip


def visit_counts(
    session: Session, campaign_ids: Collection[int], *, since: datetime | None = None, until: datetime | None = None
) -> Mapping[int, Visits]:
    """Visits by activity of these campaigns, those that began from ``since`` on and before ``until``, in
    one query of the rollups. A campaign's unique visitors are the sum of ``campaign_visitors``."""
    of, at = day_counts.visits(session, Window(since, until))
    sums = (cast(func.sum(getattr(of, name)), BigInteger) for name in COUNTS)
    query = (
        select(of.activity_id, *sums)
        .join(Activity, Activity.id == of.activity_id)
        .where(Activity.campaign_id.in_(campaign_ids), of.label == Label.HUMAN)
        .group_by(of.activity_id)
    )
    if since is not None:
        query = query.where(at >= since)
    if until is not None:
        query = query.where(at < until)
    return {activity_id: Visits(*counts) for activity_id, *counts in session.execute(query)}


@dataclass(frozen=True, slots=True)
class Line:
    """Visits that have something in common."""

    name: str
    """What it is called: an address, a host, a country's code, or a msgid."""
    visits: int
    engaged: int
    active_seconds: int
    of: str = ""
    """Of a landing page: where the visits to it came from."""

    @property
    def counts(self) -> Counts:
        """What the registry's metrics of visits are made of."""
        kept = counts.Visits(visits=self.visits, engaged=self.engaged, active_seconds=self.active_seconds)
        return Counts(visits=kept)


@dataclass(frozen=True, slots=True)
class Breakdown:
    """A campaign's visits by people, looked at from several sides, the most visits first. Those that left only a count
    stand in ``total`` and ``by_activity`` alone."""

    total: Visits
    by_activity: Sequence[tuple[str, Visits]]
    by_group: Sequence[Line]
    pages: Sequence[Line]
    """Landing pages by the network or the site that led there."""
    by_device: Sequence[Line]
    by_country: Sequence[Line]


MOST_LINES = 20


def breakdown(session: Session, actor: Actor, campaign_id: int) -> Breakdown:
    """Raises NotFound."""
    actor.require(Permission.VIEW)
    campaign_of(session, campaign_id)
    titles = dict(session.execute(select(Activity.id, Activity.title).where(Activity.campaign_id == campaign_id)).all())
    by_activity = visit_counts(session, [campaign_id])
    sides: dict[str, dict[tuple[str, str], list[int]]] = {"group": {}, "page": {}, "device": {}, "country": {}}
    for row in session.execute(_grouped(list(titles))):
        came_from = row.network or row.referrer or row.source or N_("No referrer")
        for side, key in (
            ("group", (Group(row.channel_group).label, "")), ("page", (row.host + row.path, came_from)),
            ("device", (Device(row.device).label, "")), ("country", (row.country, "")),
        ):  # fmt: skip
            sums = sides[side].setdefault(key, [0, 0, 0])
            sums[:] = [was + more for was, more in zip(sums, row[-3:], strict=True)]
    return Breakdown(
        total=sum(by_activity.values(), Visits()),
        by_activity=[(titles[id], one) for id, one in sorted(by_activity.items(), key=lambda entry: -entry[1].visits)],
        by_group=_lines(sides["group"]),
        pages=_lines(sides["page"]),
        by_device=_lines(sides["device"]),
        by_country=_lines(sides["country"]),
    )


def _grouped(activity_ids: Sequence[int]) -> Select[*tuple[Any, ...]]:
    """One pass over the campaign's visits, by numbers, which get their words when they are few; the last three columns
    are sums."""
    key = (Visit.entry_id, Visit.arrival_id, Visit.device, Visit.country)
    alike = (
        select(
            *key,
            func.count().label("visits"),
            cast(func.sum(case((Visit.engaged, 1), else_=0)), BigInteger).label("engaged"),
            cast(func.sum(Visit.active_seconds), BigInteger).label("active_seconds"),
        )
        .where(Visit.activity_id.in_(activity_ids), Visit.label == Label.HUMAN)
        .group_by(*key)
        .subquery()
    )
    counted = alike.c
    return (
        select(
            WebPage.host, WebPage.path, WebArrival.channel_group, WebArrival.network, WebArrival.referrer,
            WebArrival.source, counted.device, counted.country, counted.visits, counted.engaged,
            counted.active_seconds,
        )
        .join(WebPage, WebPage.id == counted.entry_id)
        .join(WebArrival, WebArrival.id == counted.arrival_id)
    )  # fmt: skip


def _lines(side: Mapping[tuple[str, str], Sequence[int]]) -> list[Line]:
    found = [Line(name, sums[0], sums[1], sums[2], of) for (name, of), sums in side.items()]
    return sorted(found, key=lambda line: (-line.visits, line.name))[:MOST_LINES]


NEWEST_FIRST = (Visit.started_at.desc(), Visit.id.desc())


def visits_like(actor: Actor, activity_ids: Collection[int]) -> Select[*tuple[Any, ...]]:
    """Single visits as (Visit, entry, WebArrival, address), without an order: for those only who may see people."""
    actor.require(Permission.PERSONAL)
    return (
        select(Visit, WebPage, WebArrival, Contact.email.label("email"))
        .join(WebPage, WebPage.id == Visit.entry_id)
        .join(WebArrival, WebArrival.id == Visit.arrival_id)
        .outerjoin(Contact, Contact.id == Visit.contact_id)
        .where(Visit.activity_id.in_(activity_ids))
    )


def sites(session: Session) -> Mapping[str, SiteSeen]:
    """The sites whose pages were heard of, by host."""
    return {site.host: site for site in session.scalars(select(SiteSeen))}
