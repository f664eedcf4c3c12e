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
from campaigns.web.pages.error_pages import say
from campaigns.web.request_session import db_session
from campaigns.web.security.api_auth import json_body, with_key
from tracking import report_query
from tracking.bots.rules import RULES
from tracking.conversions.event_intake import MOST_AT_ONCE, EventReport, report_event, withdraw_event
from tracking.metrics.comparison import MetricComparison, figures_of
from tracking.metrics.performance import find_campaign
from tracking.metrics.registry import CENT, Number
from tracking.reports.timezone import our_zone

blueprint = Blueprint("tracking_api", __name__)

_FIELDS = ("external_id", "name", "email", "at", "value", "currency", "activity_id", "detail")


@blueprint.post("/api/v1/events")
@with_key(Scope.EVENTS)
def report(actor: Actor) -> Any:
    """Record one event, or a list of up to 500 under ``events``, each of which is accepted or refused separately.

    A single event answers 201 when it is new and 200 when its ``external_id`` was reported before. A list answers
    200 with the numbers of new and known events, and the refused ones with their position, field and message.
    """
    body = json_body()
    if "events" in body:
        return _several(actor, body["events"])
    event, is_new = report_event(db_session(), actor, _read(body))
    db_session().commit()
    return jsonify(id=str(event.id), new=is_new), 201 if is_new else 200


@blueprint.delete("/api/v1/events/<external_id>")
@with_key(Scope.EVENTS)
def withdraw(actor: Actor, external_id: str) -> Any:
    """Withdraw the event with this ``external_id`` and the conversions that it caused."""
    event = withdraw_event(db_session(), actor, external_id)
    db_session().commit()
    return jsonify(id=str(event.id), withdrawn=True)


@blueprint.get("/api/v1/campaigns/<int:campaign_id>/figures")
@with_key(Scope.FIGURES)
def figures_of_campaign(actor: Actor, campaign_id: int) -> Any:
    """Return every metric of a campaign, with the same values as its page.

    Query parameters: ``period`` is ``whole`` (default), ``7``, ``28``, ``90`` or ``2026-11-01..2026-11-07`` (days
    in the organisation's time zone, both included); ``dated`` is ``cohort`` (default) or ``event``.
    """
    question = report_query.question()
    found, as_of = figures_of(db_session(), actor, campaign_id, question, our_zone())
    campaign = find_campaign(db_session(), campaign_id)
    first, last = question.period.first, question.period.last
    return jsonify(
        campaign={"id": str(campaign.id), "name": campaign.name, "status": campaign.status.value},
        period={"key": question.period.key, "first": _iso(first), "last": _iso(last), "timezone": str(our_zone())},
        dated="cohort" if question.cohort else "event",
        as_of=_iso(as_of),
        screening_rules=RULES,
        figures={key: _told(figure) for key, figure in found.items()},
    )


def _told(figure: MetricComparison) -> dict[str, Any]:
    reading = figure.reading
    told: dict[str, Any] = {
        "label": reading.metric.label,
        "unit": reading.metric.unit.value,
        "value": _plain(reading.value),
        "before": _plain(figure.before),
        "change": figure.change,
        "formula": reading.metric.formula,
        "dedupe": reading.metric.dedupe,
    }
    for side, part in (("numerator", reading.numerator), ("denominator", reading.denominator)):
        if part is not None:
            told[side] = {"key": part.metric.key, "value": _plain(part.value)}
    return told


def _plain(value: Number | None) -> Any:
    """Return money as a string with two decimals, because a JSON number is not an exact decimal."""
    return format(value.quantize(CENT), "f") if isinstance(value, Decimal) else value


def _iso(moment: date | None) -> str | None:
    return None if moment is None else moment.isoformat()


def _several(actor: Actor, reports: object) -> Any:
    if not isinstance(reports, list) or not 1 <= len(reports) <= MOST_AT_ONCE:
        raise ValidationFailed(
            ValidationProblem(N_("A list of 1 to %(most)s events."), "events", params={"most": MOST_AT_ONCE})
        )
    new, known, refused = 0, 0, []
    for row, one in enumerate(reports):
        try:
            with db_session().begin_nested():
                _, is_new = report_event(db_session(), actor, _read(one))
        except ValidationFailed as error:
            refused += [{"row": row, "field": problem.field, "message": say(problem)} for problem in error.problems]
        else:
            new, known = new + is_new, known + (not is_new)
    db_session().commit()
    return jsonify(new=new, known=known, refused=refused)


def _read(body: object) -> EventReport:
    if not isinstance(body, Mapping):
        raise ValidationFailed(ValidationProblem(N_("Each event is an object."), "events"))
    strange = sorted(str(name) for name in body if name not in _FIELDS)
    if strange:
        raise ValidationFailed(ValidationProblem(N_("No event has a field of this name."), strange[0][:80]))
    given: dict[str, Any] = {name: body[name] for name in _FIELDS if body.get(name) is not None}
    return EventReport(**{"external_id": None, "name": None, **given})
