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
from campaigns.errors import BadToken, NotFound, ValidationFailed, ValidationProblem
from campaigns.i18n import N_
from campaigns.tokens import Purpose, keyring
from tracking.bots import rules
from tracking.channels import channel_groups
from tracking.metrics.counts import ActivityCounts
from tracking.metrics.performance import CampaignPerformance, performance
from tracking.metrics.registry import METRICS, MetricValue, reading
from tracking.metrics.series import series
from tracking.models.events import SharedReport

DAYS = (7, 30, 90)
"""Possible lifetimes of a link, in days."""
HEADLINE = (
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
BESIDE = ("leads", "conversions", "cost", "cost_per_lead", "open_rate", "click_through_rate")
"""Registry keys of the columns in the tables of channels and activities."""
_FORM = 1
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


def share(session: Session, actor: Actor, campaign_id: int, *, days: int, zone: ZoneInfo) -> SharedReport:
    """Store a snapshot of the campaign's metrics whose link expires after ``days``.

    Raises ValidationFailed for a lifetime that is not offered, NotFound when there is no such campaign.
    """
    actor.require(Permission.PLAN)
    if days not in DAYS:
        raise ValidationFailed(ValidationProblem(N_("Choose how long the link lasts."), field="days"))
    found = performance(session, actor, campaign_id)
    now = clock.now()
    kept = SharedReport(
        campaign_id=campaign_id,
        snapshot=_snapshot(session, found, zone),
        created_by=actor.id,
        created_at=now,
        expires_at=now + timedelta(days=days),
    )
    session.add(kept)
    session.flush()
    audit.record(session, actor, "share", "campaign", campaign_id, link=kept.id, days=days)
    return kept


def withdraw(session: Session, actor: Actor, share_id: int) -> SharedReport:
    """Revoke the link from now on. Idempotent. Raises NotFound when there is no such shared report."""
    actor.require(Permission.PLAN)
    kept = session.get(SharedReport, share_id)
    if kept is None:
        raise NotFound(N_("There is no such link."))
    if kept.revoked_at is None:
        kept.revoked_at = clock.now()
        audit.record(session, actor, "unshare", "campaign", kept.campaign_id, link=kept.id)
    return kept


def links_of(actor: Actor, campaign_id: int) -> Select[SharedReport]:
    """Select the shared reports of a campaign, without an order."""
    actor.require(Permission.PLAN)
    return select(SharedReport).where(SharedReport.campaign_id == campaign_id)


def token_of(kept: SharedReport) -> str:
    """Return the token of the link, authenticated with the installation's key."""
    return keyring().mint(Purpose.SHARE, kept.id.to_bytes(_ID_BYTES))


def opened(session: Session, token: str) -> SharedReport:
    """Return the shared report behind a token.

    Raises NotFound with the same message for a forged, unknown, expired or revoked one, so that an answer does not
    reveal which links exist.
    """
    try:
        payload = keyring().open(Purpose.SHARE, token)
    except BadToken:
        payload = b""
    number = int.from_bytes(payload, signed=True) if len(payload) == _ID_BYTES else 0
    kept = session.get(SharedReport, number)
    if kept is None or kept.revoked_at is not None or kept.expires_at <= clock.now():
        raise NotFound(N_("This link opens nothing: it has ended, was taken back, or was never complete."))
    return kept


def count_view(session: Session, kept: SharedReport) -> None:
    """Increment the report's view counter in the database, which loses no concurrent view."""
    session.execute(
        update(SharedReport)
        .where(SharedReport.id == kept.id)
        .values(views=SharedReport.views + 1, viewed_at=clock.now())
        .execution_options(synchronize_session=False)
    )


def figures_of(counts: ActivityCounts, keys: Sequence[str] | None = None) -> dict[str, Any]:
    """Return metric values as JSON: value, numerator and denominator by key; None when not measured.

    ``keys`` defaults to the whole registry. Money is a string.
    """
    return {key: _kept(reading(key, counts)) for key in keys or METRICS if key in METRICS}


def read_back(kept: SharedReport) -> SharedReportView:
    """Parse a stored snapshot into values with the definitions that were stored with it."""
    told: dict[str, Any] = kept.snapshot
    definitions = {key: MetricDefinition(key, **texts) for key, texts in told["definitions"].items()}

    def figures(of: Mapping[str, Any]) -> Iterator[SharedFigure]:
        return (_figure(definitions, key, value) for key, value in of.items())

    every = list(figures(told["figures"]))
    by_key = {figure.metric.key: figure for figure in every}
    return SharedReportView(
        campaign=told["campaign"],
        organisation=told["organisation"],
        currency=told["currency"],
        starts_on=_day(told["campaign"]["starts_on"]),
        ends_on=_day(told["campaign"]["ends_on"]),
        taken_at=kept.created_at,
        as_of=datetime.fromisoformat(told["as_of"]) if told["as_of"] else None,
        rules=told["rules"],
        figures=every,
        headline=[by_key[key] for key in HEADLINE if key in by_key],
        channels=[SharedRow(one["channel"], "", list(figures(one["figures"]))) for one in told["channels"]],
        activities=[
            SharedRow(one["channel"], one["title"], list(figures(one["figures"]))) for one in told["activities"]
        ],
        chart=told["chart"],
    )


def _snapshot(session: Session, found: CampaignPerformance, zone: ZoneInfo) -> dict[str, Any]:
    campaign, ours = found.campaign, organisation(session)
    return {
        "form": _FORM,
        "organisation": ours.name,
        "currency": ours.currency,
        "as_of": found.as_of.isoformat() if found.as_of else None,
        "rules": {"screening": rules.RULES, "grouping": channel_groups.RULES},
        "campaign": {
            "name": campaign.name,
            "objective": campaign.objective.value,
            "status": campaign.status.value,
            "starts_on": campaign.starts_on.isoformat() if campaign.starts_on else None,
            "ends_on": campaign.ends_on.isoformat() if campaign.ends_on else None,
        },
        "definitions": {key: _definition(key) for key in METRICS},
        "figures": figures_of(found.counts),
        "channels": [
            {"channel": line.channel.value, "figures": figures_of(line.counts, BESIDE)} for line in found.channels
        ],
        "activities": [
            {"channel": line.channel.value, "title": line.title, "figures": figures_of(line.counts, BESIDE)}
            for line in found.activities
        ],
        "chart": _chart(session, found, zone),
    }


def _definition(key: str) -> dict[str, str]:
    metric = METRICS[key]
    return {
        "label": metric.label,
        "unit": metric.unit.value,
        "formula": metric.formula,
        "dedupe": metric.dedupe,
        "source": metric.source,
        "window": metric.window,
    }


def _chart(session: Session, found: CampaignPerformance, zone: ZoneInfo) -> dict[str, Any] | None:
    if found.first_at is None:
        return None
    known = [found.last_at, found.last_lead_at, found.first_at]
    drawn = series(session, found.campaign.id, zone, found.first_at, max(at for at in known if at is not None))
    if drawn.empty:
        return None
    whole_days = drawn.step.value in ("day", "week")
    return {
        "step": drawn.step.value,
        "starts": [start.date().isoformat() if whole_days else start.isoformat() for start in drawn.starts],
        "lines": {
            "opens": list(drawn.opens),
            "clicks": list(drawn.clicks),
            "views": list(drawn.views),
            "leads": list(drawn.leads),
        },
    }


def _kept(one: MetricValue) -> dict[str, Any]:
    kept: dict[str, Any] = {"value": _plain(one.value)}
    if one.numerator is not None and one.denominator is not None:
        kept["numerator"] = {"key": one.numerator.metric.key, **_kept(one.numerator)}
        kept["denominator"] = {"key": one.denominator.metric.key, **_kept(one.denominator)}
    return kept


def _day(text: str | None) -> date | None:
    return date.fromisoformat(text) if text else None


def _plain(value: int | float | Decimal | None) -> int | float | str | None:
    return str(value) if isinstance(value, Decimal) else value


def _figure(definitions: Mapping[str, MetricDefinition], key: str, told: Mapping[str, Any]) -> SharedFigure:
    value = told["value"]
    return SharedFigure(
        definitions[key],
        Decimal(value) if isinstance(value, str) else value,
        *(
            _figure(definitions, told[part]["key"], told[part]) if part in told else None
            for part in ("numerator", "denominator")
        ),
    )
