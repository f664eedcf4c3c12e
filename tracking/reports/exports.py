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

_ROW = ("row", "channel", "activity", "link", "address")
_FORMULA = ("=", "+", "-", "@", "\t", "\r")


def figures_csv(found: CampaignPerformance) -> str:
    """Return one line each for the campaign, its channels, its activities and its links, with every metric.

    A cell is empty when the metric is not measured.
    """
    sheet = io.StringIO()
    writer = csv.writer(sheet, lineterminator="\r\n")
    writer.writerow((*_ROW, *METRICS))
    for names, counts in _rows(found):
        writer.writerow((*map(_plain, names), *(_cell(metric, counts) for metric in METRICS.values())))
    return "\ufeff" + sheet.getvalue()


_EVENT = (
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


def events_csv(rows: Iterable[Any], activities: Mapping[int, str], words: Callable[[str], str]) -> Iterator[str]:
    """Yield the event log line by line, with the header first.

    ``rows`` are those of :func:`tracking.reports.event_log.events_query`, ``activities`` maps ids to titles, and
    ``translate`` turns a msgid into text.
    """
    yield "\ufeff" + _line(_EVENT)
    for event, address, _, link, program in rows:
        yield _line(
            (
                event.at.isoformat(),
                str(event.id),
                HitKind(event.kind).name.lower(),
                TrafficLabel(event.label).name.lower(),
                str(event.rules),
                " ".join(words(said.words) for said in rules.why(event.reasons)),
                str(rules.score(event.reasons)),
                _plain(activities[event.activity_id]),
                str(event.link or ""),
                _plain(link or ""),
                _plain(address or ""),
                str(event.send_id or ""),
                ip_networks.name(event.network),
                _plain(program or ""),
            )
        )


_EVIDENCE = ("id", "at", "contact", "address", "activity", "what", "amount")


def evidence_csv(rows: Iterable[Any], activities: Mapping[int, str]) -> Iterator[str]:
    """Yield the rows behind a metric line by line, with the header first.

    ``rows`` are those of :class:`tracking.reports.drilldown.Drilldown`, ``activities`` maps ids to titles.
    """
    yield "\ufeff" + _line(_EVIDENCE)
    for row in rows:
        yield _line(
            (
                str(row.id),
                row.at.isoformat() if row.at else "",
                str(row.contact_id or ""),
                _plain(row.address or ""),
                _plain(activities.get(row.activity_id, "")),
                str(row.what),
                "" if row.amount is None else str(row.amount),
            )
        )


def _line(cells: Iterable[str]) -> str:
    line = io.StringIO()
    csv.writer(line, lineterminator="\r\n").writerow(cells)
    return line.getvalue()


def _rows(found: CampaignPerformance) -> Iterator[tuple[tuple[str, ...], ActivityCounts]]:
    yield ("campaign", "", found.campaign.name, "", ""), found.counts
    for channel in found.channels:
        yield ("channel", channel.channel.value, "", "", ""), channel.counts
    for line in found.activities:
        yield ("activity", line.channel.value, line.title, "", ""), line.counts
    for link in found.links:
        activity = link.activity
        yield ("link", activity.channel.value, activity.title, f"{link.number} {link.label}", link.url), link.counts


def _cell(metric: Metric, counts: ActivityCounts) -> str:
    value = metric.value(counts)
    if value is None:
        return ""
    if metric.unit is Unit.MONEY:
        return str(Decimal(value).quantize(CENT))
    return f"{value:.6f}" if isinstance(value, float) else str(value)


def _plain(text: str) -> str:
    """Prefix an apostrophe to text that a spreadsheet would run as a formula."""
    return f"'{text}" if text.startswith(_FORMULA) else text
