"""A campaign's figures for a period, each with what it was before: what page, export and programs are given."""

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

FIRST_SCREEN = ("leads", "lead_conversion_rate", "conversions", "cost", "cost_per_lead", "roi")
MAIL_SCREEN = ("open_rate", "click_through_rate", "click_to_open_rate", "bounce_rate", "unsubscribe_rate")
WEB_SCREEN = ("visits", "visitors", "new_visitor_share", "time_on_page", "web_bounce_rate")


@dataclass(frozen=True, slots=True)
class MetricComparison:
    """One reading beside the same of the period before."""

    reading: MetricValue
    before: Number | None
    change: float | None
    """Of counts a share of before; of rates the difference in points."""

    @property
    def metric(self) -> Metric:
        return self.reading.metric


@dataclass(frozen=True, slots=True)
class PeriodQuery:
    """What a page of figures was asked for."""

    period: Period = WHOLE_LIFE
    cohort: bool = True

    def asked(self, zone: ZoneInfo) -> ReportQuery:
        return ReportQuery(self.period.window(zone), self.cohort)

    def before(self, zone: ZoneInfo) -> ReportQuery | None:
        before = self.period.before
        return None if before is None else ReportQuery(before.window(zone), self.cohort)


def figures(counts: ActivityCounts, before: ActivityCounts | None) -> dict[str, MetricComparison]:
    """Every metric of the registry, by its key."""
    return {key: _figure(key, counts, before) for key in METRICS}


def figures_of(
    session: Session, actor: Actor, campaign_id: int, question: PeriodQuery, zone: ZoneInfo
) -> tuple[dict[str, MetricComparison], datetime | None]:
    """A campaign's figures and as of when they are. Raises NotFound."""
    counts = performance.totals(session, actor, campaign_id, question.asked(zone))
    asked = question.before(zone)
    before = None if asked is None else performance.totals(session, actor, campaign_id, asked)
    return figures(counts, before), performance.as_of(session)


def beside(counts: Sequence[ActivityCounts], keys: Sequence[str]) -> list[tuple[Metric, list[MetricValue]]]:
    """The same metrics of several campaigns or periods, row by row."""
    return [(METRICS[key], [reading(key, one) for one in counts]) for key in keys]


def _figure(key: str, counts: ActivityCounts, before: ActivityCounts | None) -> MetricComparison:
    now = reading(key, counts)
    earlier = None if before is None else METRICS[key].value(before)
    return MetricComparison(now, earlier, change(now.value, earlier, now.metric.unit))
