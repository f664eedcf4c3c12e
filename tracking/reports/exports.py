"""CSV exports: metrics of a campaign, its event log, and the rows behind a metric.

Metrics come from the same counts and the same registry as the page. Files begin with a byte-order mark, without which
Excel does not read them as UTF-8. Cells that begin like a formula are escaped (CSV injection).
"""

import csv
import io
from collections.abc import Callable, Iterable, Iterator, Mapping
from decimal import Decimal
from typing import Any

from tracking.bots import rules
from tracking.endpoints import ip_networks
from tracking.metrics.counts import ActivityCounts
from tracking.metrics.performance import CampaignPerformance
from tracking.metrics.registry import CENT, METRICS, Metric, Unit
from tracking.models.events import HitKind, TrafficLabel

_FIGURE_COLUMNS = ("row", "channel", "activity", "link", "address")
_FORMULA_PREFIXES = ("=", "+", "-", "@", "\t", "\r")


def figures_csv(report: CampaignPerformance) -> str:
    """Return one line each for the campaign, its channels, its activities and its links, with every metric.

    A cell is empty when the metric is not measured.
    """
    sheet = io.StringIO()
    writer = csv.writer(sheet, lineterminator="\r\n")
    writer.writerow((*_FIGURE_COLUMNS, *METRICS))
    for names, counts in _figure_rows(report):
        writer.writerow((*map(_escape_formula, names), *(_format_value(metric, counts) for metric in METRICS.values())))
    return "\ufeff" + sheet.getvalue()


_EVENT_COLUMNS = (
    "at",
    "event",
    "kind",
    "label",
    "rules",
    "reasons",
    "score",
    "activity",
    "link",
    "link label",
    "address",
    "send",
    "network",
    "program",
)


def events_csv(rows: Iterable[Any], activities: Mapping[int, str], translate: Callable[[str], str]) -> Iterator[str]:
    """Yield the event log line by line, with the header first.

    ``rows`` are those of :func:`tracking.reports.event_log.events_query`, ``activities`` maps ids to titles, and
    ``translate`` turns a msgid into text.
    """
    yield "\ufeff" + _csv_line(_EVENT_COLUMNS)
    for event, address, _, link, program in rows:
        yield _csv_line(
            (
                event.at.isoformat(),
                str(event.id),
                HitKind(event.kind).name.lower(),
                TrafficLabel(event.label).name.lower(),
                str(event.rules),
                " ".join(translate(reason.description) for reason in rules.reason_details(event.reasons)),
                str(rules.score(event.reasons)),
                _escape_formula(activities[event.activity_id]),
                str(event.link or ""),
                _escape_formula(link or ""),
                _escape_formula(address or ""),
                str(event.send_id or ""),
                ip_networks.format_network(event.network),
                _escape_formula(program or ""),
            )
        )


_DRILLDOWN_COLUMNS = ("id", "at", "contact", "address", "activity", "what", "amount")


def drilldown_csv(rows: Iterable[Any], activities: Mapping[int, str]) -> Iterator[str]:
    """Yield the rows behind a metric line by line, with the header first.

    ``rows`` are those of :class:`tracking.reports.drilldown.Drilldown`, ``activities`` maps ids to titles.
    """
    yield "\ufeff" + _csv_line(_DRILLDOWN_COLUMNS)
    for row in rows:
        yield _csv_line(
            (
                str(row.id),
                row.at.isoformat() if row.at else "",
                str(row.contact_id or ""),
                _escape_formula(row.address or ""),
                _escape_formula(activities.get(row.activity_id, "")),
                str(row.what),
                "" if row.amount is None else str(row.amount),
            )
        )


def _csv_line(cells: Iterable[str]) -> str:
    line = io.StringIO()
    csv.writer(line, lineterminator="\r\n").writerow(cells)
    return line.getvalue()


def _figure_rows(report: CampaignPerformance) -> Iterator[tuple[tuple[str, ...], ActivityCounts]]:
    yield ("campaign", "", report.campaign.name, "", ""), report.counts
    for channel in report.channels:
        yield ("channel", channel.channel.value, "", "", ""), channel.counts
    for line in report.activities:
        yield ("activity", line.channel.value, line.title, "", ""), line.counts
    for link in report.links:
        activity = link.activity
        yield ("link", activity.channel.value, activity.title, f"{link.number} {link.label}", link.url), link.counts


def _format_value(metric: Metric, counts: ActivityCounts) -> str:
    value = metric.value(counts)
    if value is None:
        return ""
    if metric.unit is Unit.MONEY:
        return str(Decimal(value).quantize(CENT))
    return f"{value:.6f}" if isinstance(value, float) else str(value)


def _escape_formula(text: str) -> str:
    """Prefix an apostrophe to text that a spreadsheet would run as a formula."""
    return f"'{text}" if text.startswith(_FORMULA_PREFIXES) else text
