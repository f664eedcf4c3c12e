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
from tracking.counters.periods import ALL_TIME
from tracking.metrics.counts import ActivityCounts, sum_counts
from tracking.metrics.performance import ActivityRow, activity_rows, channel_rows
from tracking.metrics.registry import METRICS, Metric
from tracking.metrics.series import last_midnights, sparklines
from tracking.models.conversions import Conversion
from tracking.models.events import TrafficLabel

SPARK_DAYS = 14
LIST_METRICS = ("leads", "conversions", "lead_conversion_rate", "cost_per_lead", "open_rate", "click_through_rate")
"""Registry keys of the list's columns."""
ASCENDING_METRICS = ("cost_per_lead",)
_NOT_MEASURED_SORT_VALUE = -1.0e18
"""Sort value of campaigns without a measured value; they come last in both directions. Keyset paging needs keys that
are never NULL."""


@dataclass(frozen=True, slots=True)
class CampaignFilter:
    """Filter criteria of the campaign list; None and "" leave a criterion out."""

    search: str = ""
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
    sparkline: Sequence[int]


def campaigns_query(actor: Actor, criteria: CampaignFilter) -> Select[Campaign]:
    """Select the campaigns that match the criteria, without an order. Built-in campaigns are left out."""
    actor.require(Permission.VIEW)
    query = select(Campaign).where(Campaign.built_in.is_(False))
    query = query.where(Campaign.archived_at.is_not(None) if criteria.archived else Campaign.archived_at.is_(None))
    if criteria.status is not None:
        query = query.where(Campaign.status == criteria.status)
    if criteria.objective is not None:
        query = query.where(Campaign.objective == criteria.objective)
    if criteria.owner_id is not None:
        query = query.where(Campaign.owner_id == criteria.owner_id)
    if criteria.channel is not None:
        query = query.where(
            exists().where(and_(Activity.campaign_id == Campaign.id, Activity.channel == criteria.channel))
        )
    if criteria.first is not None:
        query = query.where(or_(Campaign.ends_on.is_(None), Campaign.ends_on >= criteria.first))
    if criteria.last is not None:
        query = query.where(or_(Campaign.starts_on.is_(None), Campaign.starts_on <= criteria.last))
    if criteria.search:
        query = query.where(Campaign.name.icontains(criteria.search, autoescape=True))
    return query


def sortable_metrics() -> list[str]:
    """Return the metrics of the list that the database can sort by."""
    return [key for key in LIST_METRICS if _base_metrics(key) <= _COUNT_QUERIES.keys()]


def order_by_metric(
    session: Session, query: Select[Campaign], key: str, *, ascending: bool
) -> tuple[Select[Campaign], list[Any]]:
    """Return the query extended by the joins for sorting by the metric ``key``, and its sort keys.

    Campaigns without a measured value come last. The metric is computed in SQL from the same counters that the
    registry uses, with one grouped subquery per count.
    """
    columns: dict[str, ColumnElement[Any]] = {}
    for base_key in sorted(_base_metrics(key)):
        counts = _COUNT_QUERIES[base_key](session).subquery(base_key)
        query = query.outerjoin(counts, counts.c.campaign_id == Campaign.id)
        columns[base_key] = counts.c.number
        if base_key in _ZERO_WHEN_MISSING:
            columns[base_key] = func.coalesce(counts.c.number, 0.0)
    metric_value = cast(_metric_expression(key, columns), Float)
    # Ascending order negates the value and still sorts descending, so unmeasured campaigns come last either way.
    value = func.coalesce(-metric_value if ascending else metric_value, _NOT_MEASURED_SORT_VALUE, type_=Float)
    return query, [value.desc(), Campaign.id.desc()]


def campaign_rows(session: Session, campaigns: Sequence[Campaign], zone: ZoneInfo) -> list[CampaignRow]:
    """Return the rows for these campaigns in the given order; the number of queries does not depend on theirs."""
    ids = [campaign.id for campaign in campaigns]
    if not ids:
        return []
    groups: dict[int, list[ActivityRow]] = defaultdict(list)
    for line in activity_rows(session, ids):
        groups[line.campaign_id].append(line)
    recent = sparklines(session, ids, last_midnights(clock.now(), zone, SPARK_DAYS))
    return [
        CampaignRow(
            campaign,
            sum_counts(line.counts for line in groups[campaign.id]),
            [line.channel for line in channel_rows(groups[campaign.id])],
            recent[campaign.id],
        )
        for campaign in campaigns
    ]


def _base_metrics(key: str) -> set[str]:
    metric = METRICS[key]
    if metric.count is not None:
        return {key}
    return {atom for part in (metric.numerator, *_denominator_keys(metric)) for atom in _base_metrics(part)}


def _denominator_keys(metric: Metric) -> list[str]:
    """Return the keys of the possible denominators; the first measured one applies."""
    return [key for key in (metric.denominator, metric.fallback_denominator) if key]


def _metric_expression(key: str, columns: dict[str, ColumnElement[Any]]) -> ColumnElement[Any]:
    if key in columns:
        return columns[key]
    metric = METRICS[key]
    divisors = [_metric_expression(one, columns) for one in _denominator_keys(metric)]
    divisor = divisors[0] if len(divisors) == 1 else func.coalesce(*divisors)
    return _metric_expression(metric.numerator, columns) / func.nullif(divisor, 0.0)


def _count_by(column: InstrumentedAttribute[Any]) -> Select[Any]:
    return select(column.label("campaign_id"), cast(func.count(), Float).label("number")).group_by(column)


def _cost_sums(_session: Session) -> Select[Any]:
    number = cast(func.sum(Activity.cost), Float).label("number")
    return select(Activity.campaign_id, number).where(Activity.cost.is_not(None)).group_by(Activity.campaign_id)


def _sends_with_flag(flag: SendFlag) -> Callable[[Session], Select[Any]]:
    def build_query(_session: Session) -> Select[Any]:
        flags = SendFlag.TRACKABLE | flag
        matches = and_(SendCount.state == SendState.SENT, SendCount.flags.bitwise_and(int(flags)) == int(flags))
        number = cast(func.sum(case((matches, SendCount.count), else_=0)), Float).label("number")
        return (
            select(Activity.campaign_id, number)
            .join(Activity, Activity.id == SendCount.activity_id)
            .where(SendCount.state == SendState.SENT)
            .group_by(Activity.campaign_id)
        )

    return build_query


def _visitor_sums(session: Session) -> Select[Any]:
    rollup, _at = daily.visit_source(session, ALL_TIME)
    number = cast(func.sum(rollup.campaign_visitors), Float).label("number")
    return (
        select(Activity.campaign_id, number)
        .join(Activity, Activity.id == rollup.activity_id)
        .where(rollup.label == TrafficLabel.HUMAN)
        .group_by(Activity.campaign_id)
    )


_COUNT_QUERIES: dict[str, Callable[[Session], Select[Any]]] = {
    "leads": lambda _session: _count_by(Lead.campaign_id),
    "conversions": lambda _session: _count_by(Conversion.campaign_id),
    "cost": _cost_sums,
    "trackable": _sends_with_flag(SendFlag.TRACKABLE),
    "openers": _sends_with_flag(SendFlag.OPENED),
    "clickers": _sends_with_flag(SendFlag.CLICKED),
    "visitors": _visitor_sums,
}
"""Queries ``(campaign_id, number)`` for the metrics that the database can count for all campaigns at once."""
_ZERO_WHEN_MISSING = {"leads", "conversions"}
