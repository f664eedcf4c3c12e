"""REST API of tracking: reporting and withdrawing custom events, reading a campaign's metrics.

Scope ``events`` covers the first two, scope ``figures`` the third.
"""

from collections.abc import Mapping
from datetime import date
from decimal import Decimal
from typing import Any

from flask import Blueprint, jsonify

from campaigns.accounts.actor import Actor
from campaigns.accounts.models import Scope
from campaigns.errors import ValidationFailed, ValidationProblem
from campaigns.i18n import N_
from campaigns.web.pages.error_pages import error_text
from campaigns.web.request_session import db_session
from campaigns.web.security.api_auth import json_body, require_api_key
from tracking import report_query
from tracking.bots.rules import RULES_VERSION
from tracking.conversions.event_intake import MAX_EVENTS_PER_REQUEST, EventReport, report_event, withdraw_event
from tracking.metrics.comparison import MetricComparison, campaign_metrics
from tracking.metrics.performance import find_campaign
from tracking.metrics.registry import CENT, Number
from tracking.reports.timezone import organisation_zone

blueprint = Blueprint("tracking_api", __name__)

_EVENT_FIELDS = ("external_id", "name", "email", "at", "value", "currency", "activity_id", "detail")


@blueprint.post("/api/v1/events")
@require_api_key(Scope.EVENTS)
def report(actor: Actor) -> Any:
    """Record one event, or a list of up to 500 under ``events``, each of which is accepted or refused separately.

    A single event answers 201 when it is new and 200 when its ``external_id`` was reported before. A list answers
    200 with the numbers of new and known events, and the refused ones with their position, field and message.
    """
    body = json_body()
    if "events" in body:
        return _report_batch(actor, body["events"])
    event, is_new = report_event(db_session(), actor, _parse_event(body))
    db_session().commit()
    return jsonify(id=str(event.id), new=is_new), 201 if is_new else 200


@blueprint.delete("/api/v1/events/<external_id>")
@require_api_key(Scope.EVENTS)
def withdraw(actor: Actor, external_id: str) -> Any:
    """Withdraw the event with this ``external_id`` and the conversions that it caused."""
    event = withdraw_event(db_session(), actor, external_id)
    db_session().commit()
    return jsonify(id=str(event.id), withdrawn=True)


@blueprint.get("/api/v1/campaigns/<int:campaign_id>/figures")
@require_api_key(Scope.FIGURES)
def figures_of_campaign(actor: Actor, campaign_id: int) -> Any:
    """Return every metric of a campaign, with the same values as its page.

    Query parameters: ``period`` is ``whole`` (default), ``7``, ``28``, ``90`` or ``2026-11-01..2026-11-07`` (days
    in the organisation's time zone, both included); ``dated`` is ``cohort`` (default) or ``event``.
    """
    period_query = report_query.read_period_query()
    comparisons, as_of = campaign_metrics(db_session(), actor, campaign_id, period_query, organisation_zone())
    campaign = find_campaign(db_session(), campaign_id)
    first, last = period_query.period.first, period_query.period.last
    return jsonify(
        campaign={"id": str(campaign.id), "name": campaign.name, "status": campaign.status.value},
        period={
            "key": period_query.period.key,
            "first": _iso_or_none(first),
            "last": _iso_or_none(last),
            "timezone": str(organisation_zone()),
        },
        dated="cohort" if period_query.cohort else "event",
        as_of=_iso_or_none(as_of),
        screening_rules=RULES_VERSION,
        figures={key: _figure_json(figure) for key, figure in comparisons.items()},
    )


def _figure_json(comparison: MetricComparison) -> dict[str, Any]:
    reading = comparison.reading
    body: dict[str, Any] = {
        "label": reading.metric.label,
        "unit": reading.metric.unit.value,
        "value": _json_number(reading.value),
        "before": _json_number(comparison.before),
        "change": comparison.change,
        "formula": reading.metric.formula,
        "dedupe": reading.metric.dedupe,
    }
    for side, part in (("numerator", reading.numerator), ("denominator", reading.denominator)):
        if part is not None:
            body[side] = {"key": part.metric.key, "value": _json_number(part.value)}
    return body


def _json_number(value: Number | None) -> Any:
    """Return money as a string with two decimals, because a JSON number is not an exact decimal."""
    return format(value.quantize(CENT), "f") if isinstance(value, Decimal) else value


def _iso_or_none(moment: date | None) -> str | None:
    return None if moment is None else moment.isoformat()


def _report_batch(actor: Actor, reports: object) -> Any:
    if not isinstance(reports, list) or not 1 <= len(reports) <= MAX_EVENTS_PER_REQUEST:
        raise ValidationFailed(
            ValidationProblem(N_("A list of 1 to %(most)s events."), "events", params={"most": MAX_EVENTS_PER_REQUEST})
        )
    new, known, refused = 0, 0, []
    for row, item in enumerate(reports):
        try:
            with db_session().begin_nested():
                _, is_new = report_event(db_session(), actor, _parse_event(item))
        except ValidationFailed as error:
            refused += [
                {"row": row, "field": problem.field, "message": error_text(problem)} for problem in error.problems
            ]
        else:
            new, known = new + is_new, known + (not is_new)
    db_session().commit()
    return jsonify(new=new, known=known, refused=refused)


def _parse_event(body: object) -> EventReport:
    if not isinstance(body, Mapping):
        raise ValidationFailed(ValidationProblem(N_("Each event is an object."), "events"))
    unknown_fields = sorted(str(name) for name in body if name not in _EVENT_FIELDS)
    if unknown_fields:
        raise ValidationFailed(ValidationProblem(N_("No event has a field of this name."), unknown_fields[0][:80]))
    values: dict[str, Any] = {name: body[name] for name in _EVENT_FIELDS if body.get(name) is not None}
    return EventReport(**{"external_id": None, "name": None, **values})
