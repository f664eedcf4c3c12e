"""Campaign list: filtering, sorting by any metric and the metrics of one page of campaigns."""

from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import date
from typing import Any
from zoneinfo import ZoneInfo

from sqlalchemy import ColumnElement, Float, Select, and_, case, cast, exists, func, or_, select
from sqlalchemy.orm import InstrumentedAttribute, Session

from campaigns import clock
from campaigns.accounts.actor import Actor, Permission
from campaigns.delivery.models import SendState
from campaigns.delivery.sends.counters import SendCount, SendFlag
from campaigns.leads.models import Lead
from campaigns.planning.models import Activity, Campaign, CampaignStatus, Channel, Objective
from tracking.counters import daily
from tracking.counters.periods import WHOLE
from tracking.metrics.counts import ActivityCounts, total
from tracking.metrics.performance import ActivityRow, activity_lines, by_channel
from tracking.metrics.registry import METRICS, Metric
from tracking.metrics.series import days, sparks
from tracking.models.conversions import Conversion
from tracking.models.events import TrafficLabel

SPARK_DAYS = 14
FIGURES = ("leads", "conversions", "lead_conversion_rate", "cost_per_lead", "open_rate", "click_through_rate")
"""Registry keys of the list's columns."""
LEAST_FIRST = ("cost_per_lead",)
_NOT_MEASURED = -1.0e18
"""Sort value of campaigns without a measured value; they come last in both directions. Keyset paging needs keys that
are never NULL."""


@dataclass(frozen=True, slots=True)
class CampaignFilter:
    """Filter criteria of the campaign list; None and "" leave a criterion out."""

    words: str = ""
    status: CampaignStatus | None = None
    objective: Objective | None = None
    channel: Channel | None = None
    owner_id: int | None = None
    first: date | None = None
    """With ``last``: campaigns whose period overlaps these days. A campaign without dates matches."""
    last: date | None = None
    archived: bool = False


@dataclass(frozen=True, slots=True)
class CampaignRow:
    """One campaign with its counts, its channels, and its human opens and clicks of the last ``SPARK_DAYS`` days."""

    campaign: Campaign
    counts: ActivityCounts
    channels: Sequence[Channel]
    spark: Sequence[int]


def campaigns_like(actor: Actor, wanted: CampaignFilter) -> Select[Campaign]:
    """Select the campaigns that match the criteria, without an order. Built-in campaigns are left out."""
    actor.require(Permission.VIEW)
    query = select(Campaign).where(Campaign.built_in.is_(False))
    query = query.where(Campaign.archived_at.is_not(None) if wanted.archived else Campaign.archived_at.is_(None))
    if wanted.status is not None:
        query = query.where(Campaign.status == wanted.status)
    if wanted.objective is not None:
        query = query.where(Campaign.objective == wanted.objective)
    if wanted.owner_id is not None:
        query = query.where(Campaign.owner_id == wanted.owner_id)
    if wanted.channel is not None:
        query = query.where(
            exists().where(and_(Activity.campaign_id == Campaign.id, Activity.channel == wanted.channel))
        )
    if wanted.first is not None:
        query = query.where(or_(Campaign.ends_on.is_(None), Campaign.ends_on >= wanted.first))
    if wanted.last is not None:
        query = query.where(or_(Campaign.starts_on.is_(None), Campaign.starts_on <= wanted.last))
    if wanted.words:
        query = query.where(Campaign.name.icontains(wanted.words, autoescape=True))
    return query


def sortable() -> list[str]:
    """Return the metrics of the list that the database can sort by."""
    return [key for key in FIGURES if _atoms(key) <= _COUNTED.keys()]


def by_figure(
    session: Session, query: Select[Campaign], key: str, *, ascending: bool
) -> tuple[Select[Campaign], list[Any]]:
    """Return the query extended by the joins for sorting by the metric ``key``, and its sort keys.

    Campaigns without a measured value come last. The metric is computed in SQL from the same counters that the
    registry uses, with one grouped subquery per count.
    """
    columns: dict[str, ColumnElement[Any]] = {}
    for atom in sorted(_atoms(key)):
        found = _COUNTED[atom](session).subquery(atom)
        query = query.outerjoin(found, found.c.campaign_id == Campaign.id)
        columns[atom] = found.c.number
        if atom in _ZERO_IS_COUNTED:
            columns[atom] = func.coalesce(found.c.number, 0.0)
    figure = cast(_figure(key, columns), Float)
    # Ascending order negates the value and still sorts descending, so unmeasured campaigns come last either way.
    value = func.coalesce(-figure if ascending else figure, _NOT_MEASURED, type_=Float)
    return query, [value.desc(), Campaign.id.desc()]


def campaign_lines(session: Session, campaigns: Sequence[Campaign], zone: ZoneInfo) -> list[CampaignRow]:
    """Return the rows for these campaigns in the given order; the number of queries does not depend on theirs."""
    ids = [campaign.id for campaign in campaigns]
    if not ids:
        return []
    groups: dict[int, list[ActivityRow]] = defaultdict(list)
    for line in activity_lines(session, ids):
        groups[line.campaign_id].append(line)
    recent = sparks(session, ids, days(clock.now(), zone, SPARK_DAYS))
    return [
        CampaignRow(
            campaign,
            total(line.counts for line in groups[campaign.id]),
            [line.channel for line in by_channel(groups[campaign.id])],
            recent[campaign.id],
        )
        for campaign in campaigns
    ]


def _atoms(key: str) -> set[str]:
    metric = METRICS[key]
    if metric.count is not None:
        return {key}
    return {atom for part in (metric.numerator, *_divisors(metric)) for atom in _atoms(part)}


def _divisors(metric: Metric) -> list[str]:
    """Return the keys of the possible denominators; the first measured one applies."""
    return [key for key in (metric.denominator, metric.otherwise) if key]


def _figure(key: str, columns: dict[str, ColumnElement[Any]]) -> ColumnElement[Any]:
    if key in columns:
        return columns[key]
    metric = METRICS[key]
    divisors = [_figure(one, columns) for one in _divisors(metric)]
    divisor = divisors[0] if len(divisors) == 1 else func.coalesce(*divisors)
    return _figure(metric.numerator, columns) / func.nullif(divisor, 0.0)


def _rows(of: InstrumentedAttribute[Any]) -> Select[Any]:
    return select(of.label("campaign_id"), cast(func.count(), Float).label("number")).group_by(of)


def _costs(_session: Session) -> Select[Any]:
    number = cast(func.sum(Activity.cost), Float).label("number")
    return select(Activity.campaign_id, number).where(Activity.cost.is_not(None)).group_by(Activity.campaign_id)


def _marked(mark: SendFlag) -> Callable[[Session], Select[Any]]:
    def counted(_session: Session) -> Select[Any]:
        both = SendFlag.TRACKABLE | mark
        fits = and_(SendCount.state == SendState.SENT, SendCount.flags.bitwise_and(int(both)) == int(both))
        number = cast(func.sum(case((fits, SendCount.count), else_=0)), Float).label("number")
        return (
            select(Activity.campaign_id, number)
            .join(Activity, Activity.id == SendCount.activity_id)
            .where(SendCount.state == SendState.SENT)
            .group_by(Activity.campaign_id)
        )

    return counted


def _visitors(session: Session) -> Select[Any]:
    of, _at = daily.visits(session, WHOLE)
    number = cast(func.sum(of.campaign_visitors), Float).label("number")
    return (
        select(Activity.campaign_id, number)
        .join(Activity, Activity.id == of.activity_id)
        .where(of.label == TrafficLabel.HUMAN)
        .group_by(Activity.campaign_id)
    )


_COUNTED: dict[str, Callable[[Session], Select[Any]]] = {
    "leads": lambda _session: _rows(Lead.campaign_id),
    "conversions": lambda _session: _rows(Conversion.campaign_id),
    "cost": _costs,
    "trackable": _marked(SendFlag.TRACKABLE),
    "openers": _marked(SendFlag.OPENED),
    "clickers": _marked(SendFlag.CLICKED),
    "visitors": _visitors,
}
"""Queries ``(campaign_id, number)`` for the metrics that the database can count for all campaigns at once."""
_ZERO_IS_COUNTED = {"leads", "conversions"}
