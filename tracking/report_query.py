"""Query parameters of report pages: period, dating of mails, traffic filter and attribution model.

Unknown or missing values fall back to the default.
"""

from enum import StrEnum

from flask import request

from campaigns import clock
from campaigns.i18n import N_
from tracking.counters.periods import Period, parse_period
from tracking.metrics.comparison import PeriodQuery
from tracking.reports.timezone import organisation_zone


class TrafficFilter(StrEnum):
    """Which hits the tables of hits show. Rates always count human hits only."""

    HUMAN = "human"
    MACHINE = "machine"
    SETTLING = "settling"

    @property
    def label(self) -> str:
        return {self.HUMAN: N_("Human"), self.MACHINE: N_("Machine"), self.SETTLING: N_("Settling")}[self]

    @property
    def clicks_metric(self) -> str:
        """The registry key of the metric that counts these clicks."""
        return "clicks" if self is TrafficFilter.HUMAN else f"clicks_{self.value}"


class AttributionChoice(StrEnum):
    """Which activity a conversion is counted for on a page.

    The default is the last touch, so that a channel which leads people to another channel's form shows its effect.
    """

    LAST = "last"
    FIRST = "first"
    FORM = "form"
    INFLUENCED = "influenced"

    @property
    def label(self) -> str:
        return {
            self.FORM: N_("Where it happened"),
            self.FIRST: N_("First touch"),
            self.LAST: N_("Last touch"),
            self.INFLUENCED: N_("Influenced"),
        }[self]

    @property
    def metric_keys(self) -> tuple[str, ...]:
        """Registry keys of the number of conversions and, where there is one, of their revenue."""
        return {
            self.FORM: ("conversions", "revenue"),
            self.FIRST: ("leads_first_touch", "revenue_first_touch"),
            self.LAST: ("leads_last_touch", "revenue_last_touch"),
            self.INFLUENCED: ("influenced",),
        }[self]


def read_period_query() -> PeriodQuery:
    """Read ``period`` (or ``from`` and ``to`` when it is ``custom``) and ``dated`` from the request's URL.

    Unusable days mean the whole life of the campaign.
    """
    key = request.args.get("period", "")
    if key == "custom":
        key = f"{request.args.get('from', '')}..{request.args.get('to', '')}"
    return PeriodQuery(period_for_key(key), request.args.get("dated") != "event")


def period_for_key(key: str) -> Period:
    """Return the period that a key names, relative to today in the organisation's time zone."""
    return parse_period(key, clock.now().astimezone(organisation_zone()).date())


def read_traffic_filter() -> TrafficFilter:
    """Read ``who`` from the request's URL."""
    value = request.args.get("who", "")
    return TrafficFilter(value) if value in set(TrafficFilter) else TrafficFilter.HUMAN


def read_attribution_choice() -> AttributionChoice:
    """Read ``earns`` from the request's URL."""
    value = request.args.get("earns", "")
    return AttributionChoice(value) if value in set(AttributionChoice) else AttributionChoice.LAST
