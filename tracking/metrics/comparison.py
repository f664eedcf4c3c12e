"""Metrics of a campaign for a period, compared with the period before or with another campaign."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from zoneinfo import ZoneInfo

from sqlalchemy.orm import Session

from campaigns.accounts.actor import Actor
from tracking.counters.periods import Period
from tracking.metrics import performance
from tracking.metrics.counts import ActivityCounts
from tracking.metrics.queries import ReportQuery
from tracking.metrics.registry import METRICS, Metric, MetricValue, Number, change, reading

WHOLE_LIFE = Period()

HEADLINE_METRICS = ("leads", "lead_conversion_rate", "conversions", "cost", "cost_per_lead", "roi")
MAIL_METRICS = ("open_rate", "click_through_rate", "click_to_open_rate", "bounce_rate", "unsubscribe_rate")
WEB_METRICS = ("visits", "visitors", "new_visitor_share", "time_on_page", "web_bounce_rate")


@dataclass(frozen=True, slots=True)
class MetricComparison:
    """A metric's value with its value in the period before."""

    reading: MetricValue
    before: Number | None
    change: float | None
    """Relative change of counts and money; absolute difference of rates. See ``tracking.metrics.registry.change``."""

    @property
    def metric(self) -> Metric:
        return self.reading.metric


@dataclass(frozen=True, slots=True)
class PeriodQuery:
    """The period a report page was requested for, and whether mails are dated by their send day (cohort)."""

    period: Period = WHOLE_LIFE
    cohort: bool = True

    def report_query(self, zone: ZoneInfo) -> ReportQuery:
        """Return the query for the period's days in this time zone."""
        return ReportQuery(self.period.window(zone), self.cohort)

    def previous_report_query(self, zone: ZoneInfo) -> ReportQuery | None:
        """Return the query for the period of the same length before; None for a whole life."""
        before = self.period.previous
        return None if before is None else ReportQuery(before.window(zone), self.cohort)


def compare_metrics(counts: ActivityCounts, before: ActivityCounts | None) -> dict[str, MetricComparison]:
    """Compare every metric of the registry, by key; ``before`` is None when there is no earlier period."""
    return {key: _compare_metric(key, counts, before) for key in METRICS}


def campaign_metrics(
    session: Session, actor: Actor, campaign_id: int, period_query: PeriodQuery, zone: ZoneInfo
) -> tuple[dict[str, MetricComparison], datetime | None]:
    """Return a campaign's compared metrics by key, and the instant at which hits were counted last.

    Raises NotFound when there is no such campaign.
    """
    counts = performance.campaign_totals(session, actor, campaign_id, period_query.report_query(zone))
    previous_query = period_query.previous_report_query(zone)
    before = (
        None if previous_query is None else performance.campaign_totals(session, actor, campaign_id, previous_query)
    )
    return compare_metrics(counts, before), performance.last_counted_at(session)


def metric_rows(counts: Sequence[ActivityCounts], keys: Sequence[str]) -> list[tuple[Metric, list[MetricValue]]]:
    """Return one row per metric, with the values of several campaigns or periods in the given order."""
    return [(METRICS[key], [reading(key, one) for one in counts]) for key in keys]


def _compare_metric(key: str, counts: ActivityCounts, before: ActivityCounts | None) -> MetricComparison:
    now = reading(key, counts)
    earlier = None if before is None else METRICS[key].value(before)
    return MetricComparison(now, earlier, change(now.value, earlier, now.metric.unit))
