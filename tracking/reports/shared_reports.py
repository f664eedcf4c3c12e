"""Shared reports: snapshots of a campaign's metrics behind an expiring link, for readers without an account.

The snapshot is stored as JSON with every value and the definition of its metric at that time, so later changes of data
or definitions do not alter it. It contains titles of activities, but no personal data.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from decimal import Decimal
from typing import Any
from zoneinfo import ZoneInfo

from sqlalchemy import Select, select, update
from sqlalchemy.orm import Session

from campaigns import clock
from campaigns.accounts import audit
from campaigns.accounts.actor import Actor, Permission
from campaigns.accounts.organisation import organisation
from campaigns.errors import InvalidTokenError, NotFound, ValidationFailed, ValidationProblem
from campaigns.i18n import N_
from campaigns.tokens import Purpose, keyring
from tracking.bots import rules
from tracking.channels import channel_groups
from tracking.metrics.counts import ActivityCounts
from tracking.metrics.performance import CampaignPerformance, campaign_performance
from tracking.metrics.registry import METRICS, MetricValue, reading
from tracking.metrics.series import campaign_series
from tracking.models.events import SharedReport

LIFETIMES_DAYS = (7, 30, 90)
"""Possible lifetimes of a link, in days."""
HEADLINE_METRICS = (
    "leads",
    "conversions",
    "lead_conversion_rate",
    "cost_per_lead",
    "open_rate",
    "click_through_rate",
    "click_to_open_rate",
    "cost",
    "revenue",
    "roi",
)
TABLE_METRICS = ("leads", "conversions", "cost", "cost_per_lead", "open_rate", "click_through_rate")
"""Registry keys of the columns in the tables of channels and activities."""
_SNAPSHOT_VERSION = 1
_ID_BYTES = 8


@dataclass(frozen=True, slots=True)
class MetricDefinition:
    """The definition of a metric when the snapshot was taken; texts are msgids."""

    key: str
    label: str
    unit: str
    formula: str
    dedupe: str
    source: str
    window: str


@dataclass(frozen=True, slots=True)
class SharedFigure:
    """A metric's value from the snapshot; None when it was not measured."""

    metric: MetricDefinition
    value: int | float | Decimal | None
    numerator: "SharedFigure | None" = None
    denominator: "SharedFigure | None" = None


@dataclass(frozen=True, slots=True)
class SharedRow:
    """A channel or an activity with its metrics, in the order of :data:`TABLE_METRICS`."""

    channel: str
    title: str
    figures: Sequence[SharedFigure]


@dataclass(frozen=True, slots=True)
class SharedReportView:
    """A snapshot parsed from JSON; ``rules`` are the versions of the bot rules and channel-group rules."""

    campaign: Mapping[str, Any]
    organisation: str
    currency: str
    starts_on: date | None
    ends_on: date | None
    taken_at: datetime
    as_of: datetime | None
    rules: Mapping[str, int]
    figures: Sequence[SharedFigure]
    headline: Sequence[SharedFigure]
    channels: Sequence[SharedRow]
    activities: Sequence[SharedRow]
    chart: Mapping[str, Any] | None


def create_report(session: Session, actor: Actor, campaign_id: int, *, days: int, zone: ZoneInfo) -> SharedReport:
    """Store a snapshot of the campaign's metrics whose link expires after ``days``.

    Raises ValidationFailed for a lifetime that is not offered, NotFound when there is no such campaign.
    """
    actor.require(Permission.PLAN)
    if days not in LIFETIMES_DAYS:
        raise ValidationFailed(ValidationProblem(N_("Choose how long the link lasts."), field="days"))
    performance_data = campaign_performance(session, actor, campaign_id)
    now = clock.now()
    report = SharedReport(
        campaign_id=campaign_id,
        snapshot=_build_snapshot(session, performance_data, zone),
        created_by=actor.id,
        created_at=now,
        expires_at=now + timedelta(days=days),
    )
    session.add(report)
    session.flush()
    audit.record(session, actor, "share", "campaign", campaign_id, link=report.id, days=days)
    return report


def revoke_report(session: Session, actor: Actor, share_id: int) -> SharedReport:
    """Revoke the link from now on. Idempotent. Raises NotFound when there is no such shared report."""
    actor.require(Permission.PLAN)
    report = session.get(SharedReport, share_id)
    if report is None:
        raise NotFound(N_("There is no such link."))
    if report.revoked_at is None:
        report.revoked_at = clock.now()
        audit.record(session, actor, "unshare", "campaign", report.campaign_id, link=report.id)
    return report


def reports_query(actor: Actor, campaign_id: int) -> Select[SharedReport]:
    """Select the shared reports of a campaign, without an order."""
    actor.require(Permission.PLAN)
    return select(SharedReport).where(SharedReport.campaign_id == campaign_id)


def mint_token(report: SharedReport) -> str:
    """Return the token of the link, authenticated with the installation's key."""
    return keyring().mint(Purpose.SHARE, report.id.to_bytes(_ID_BYTES))


def find_by_token(session: Session, token: str) -> SharedReport:
    """Return the shared report behind a token.

    Raises NotFound with the same message for a forged, unknown, expired or revoked one, so that an answer does not
    reveal which links exist.
    """
    try:
        payload = keyring().open(Purpose.SHARE, token)
    except InvalidTokenError:
        payload = b""
    number = int.from_bytes(payload, signed=True) if len(payload) == _ID_BYTES else 0
    report = session.get(SharedReport, number)
    if report is None or report.revoked_at is not None or report.expires_at <= clock.now():
        raise NotFound(N_("This link opens nothing: it has ended, was taken back, or was never complete."))
    return report


def count_view(session: Session, report: SharedReport) -> None:
    """Increment the report's view counter in the database, which loses no concurrent view."""
    session.execute(
        update(SharedReport)
        .where(SharedReport.id == report.id)
        .values(views=SharedReport.views + 1, viewed_at=clock.now())
        .execution_options(synchronize_session=False)
    )


def values_json(counts: ActivityCounts, keys: Sequence[str] | None = None) -> dict[str, Any]:
    """Return metric values as JSON: value, numerator and denominator by key; None when not measured.

    ``keys`` defaults to the whole registry. Money is a string.
    """
    return {key: _value_json(reading(key, counts)) for key in keys or METRICS if key in METRICS}


def parse_snapshot(report: SharedReport) -> SharedReportView:
    """Parse a stored snapshot into values with the definitions that were stored with it."""
    snapshot: dict[str, Any] = report.snapshot
    definitions = {key: MetricDefinition(key, **texts) for key, texts in snapshot["definitions"].items()}

    def parse_figures(values: Mapping[str, Any]) -> Iterator[SharedFigure]:
        return (_parse_figure(definitions, key, value) for key, value in values.items())

    all_figures = list(parse_figures(snapshot["figures"]))
    by_key = {figure.metric.key: figure for figure in all_figures}
    return SharedReportView(
        campaign=snapshot["campaign"],
        organisation=snapshot["organisation"],
        currency=snapshot["currency"],
        starts_on=_parse_date(snapshot["campaign"]["starts_on"]),
        ends_on=_parse_date(snapshot["campaign"]["ends_on"]),
        taken_at=report.created_at,
        as_of=datetime.fromisoformat(snapshot["as_of"]) if snapshot["as_of"] else None,
        rules=snapshot["rules"],
        figures=all_figures,
        headline=[by_key[key] for key in HEADLINE_METRICS if key in by_key],
        channels=[SharedRow(one["channel"], "", list(parse_figures(one["figures"]))) for one in snapshot["channels"]],
        activities=[
            SharedRow(one["channel"], one["title"], list(parse_figures(one["figures"])))
            for one in snapshot["activities"]
        ],
        chart=snapshot["chart"],
    )


def _build_snapshot(session: Session, performance_data: CampaignPerformance, zone: ZoneInfo) -> dict[str, Any]:
    campaign, our_organisation = performance_data.campaign, organisation(session)
    return {
        "form": _SNAPSHOT_VERSION,
        "organisation": our_organisation.name,
        "currency": our_organisation.currency,
        "as_of": performance_data.as_of.isoformat() if performance_data.as_of else None,
        "rules": {"screening": rules.RULES_VERSION, "grouping": channel_groups.RULES_VERSION},
        "campaign": {
            "name": campaign.name,
            "objective": campaign.objective.value,
            "status": campaign.status.value,
            "starts_on": campaign.starts_on.isoformat() if campaign.starts_on else None,
            "ends_on": campaign.ends_on.isoformat() if campaign.ends_on else None,
        },
        "definitions": {key: _definition_json(key) for key in METRICS},
        "figures": values_json(performance_data.counts),
        "channels": [
            {"channel": line.channel.value, "figures": values_json(line.counts, TABLE_METRICS)}
            for line in performance_data.channels
        ],
        "activities": [
            {"channel": line.channel.value, "title": line.title, "figures": values_json(line.counts, TABLE_METRICS)}
            for line in performance_data.activities
        ],
        "chart": _chart_json(session, performance_data, zone),
    }


def _definition_json(key: str) -> dict[str, str]:
    metric = METRICS[key]
    return {
        "label": metric.label,
        "unit": metric.unit.value,
        "formula": metric.formula,
        "dedupe": metric.dedupe,
        "source": metric.source,
        "window": metric.window,
    }


def _chart_json(session: Session, performance_data: CampaignPerformance, zone: ZoneInfo) -> dict[str, Any] | None:
    if performance_data.first_at is None:
        return None
    known = [performance_data.last_at, performance_data.last_lead_at, performance_data.first_at]
    chart = campaign_series(
        session,
        performance_data.campaign.id,
        zone,
        performance_data.first_at,
        max(at for at in known if at is not None),
    )
    if chart.is_empty:
        return None
    whole_days = chart.interval.value in ("day", "week")
    return {
        "step": chart.interval.value,
        "starts": [start.date().isoformat() if whole_days else start.isoformat() for start in chart.starts],
        "lines": {
            "opens": list(chart.opens),
            "clicks": list(chart.clicks),
            "views": list(chart.views),
            "leads": list(chart.leads),
        },
    }


def _value_json(metric_value: MetricValue) -> dict[str, Any]:
    result: dict[str, Any] = {"value": _json_number(metric_value.value)}
    if metric_value.numerator is not None and metric_value.denominator is not None:
        result["numerator"] = {"key": metric_value.numerator.metric.key, **_value_json(metric_value.numerator)}
        result["denominator"] = {"key": metric_value.denominator.metric.key, **_value_json(metric_value.denominator)}
    return result


def _parse_date(text: str | None) -> date | None:
    return date.fromisoformat(text) if text else None


def _json_number(value: int | float | Decimal | None) -> int | float | str | None:
    return str(value) if isinstance(value, Decimal) else value


def _parse_figure(definitions: Mapping[str, MetricDefinition], key: str, data: Mapping[str, Any]) -> SharedFigure:
    value = data["value"]
    return SharedFigure(
        definitions[key],
        Decimal(value) if isinstance(value, str) else value,
        *(
            _parse_figure(definitions, data[part]["key"], data[part]) if part in data else None
            for part in ("numerator", "denominator")
        ),
    )
