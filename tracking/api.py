"""What programs report: events that goals wait for."""

from collections.abc import Mapping
from typing import Any

from flask import Blueprint, jsonify

from campaigns.accounts.actor import Actor
from campaigns.accounts.models import Scope
from campaigns.errors import Invalid, Problem
from campaigns.language import N_
from campaigns.web.database import db_session
from campaigns.web.errors import say
from campaigns.web.programs import json_body, with_key
from tracking.performance import performance
from tracking.reporting import MOST_AT_ONCE, Report, report_event, withdraw_event
from tracking.sharing import figures_of

blueprint = Blueprint("tracking_api", __name__)

_FIELDS = ("external_id", "name", "email", "at", "value", "currency", "activity_id", "detail")


@blueprint.post("/api/v1/events")
@with_key(Scope.EVENTS)
def report(actor: Actor) -> Any:
    """One event, or up to 500 under ``events``: then each is accepted or refused by itself.

    201 for a new event, 200 for one that was reported before.
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
    """Take back what was reported under this id, and the conversions that it reached."""
    event = withdraw_event(db_session(), actor, external_id)
    db_session().commit()
    return jsonify(id=str(event.id), withdrawn=True)


def _several(actor: Actor, reports: object) -> Any:
    if not isinstance(reports, list) or not 1 <= len(reports) <= MOST_AT_ONCE:
        raise Invalid(Problem(N_("A list of 1 to %(most)s events."), "events", params={"most": MOST_AT_ONCE}))
    new, known, refused = 0, 0, []
    for row, one in enumerate(reports):
        try:
            with db_session().begin_nested():
                _, is_new = report_event(db_session(), actor, _read(one))
        except Invalid as error:
            refused += [{"row": row, "field": problem.field, "message": say(problem)} for problem in error.problems]
        else:
            new, known = new + is_new, known + (not is_new)
    db_session().commit()
    return jsonify(new=new, known=known, refused=refused)


def _read(body: object) -> Report:
    if not isinstance(body, Mapping):
        raise Invalid(Problem(N_("Each event is an object."), "events"))
    strange = sorted(str(name) for name in body if name not in _FIELDS)
    if strange:
        raise Invalid(Problem(N_("No event has a field of this name."), strange[0][:80]))
    given: dict[str, Any] = {name: body[name] for name in _FIELDS if body.get(name) is not None}
    return Report(**{"external_id": None, "name": None, **given})


@blueprint.get("/api/v1/campaigns/<int:campaign_id>/figures")
@with_key(Scope.FIGURES)
def figures(actor: Actor, campaign_id: int) -> Any:
    """What the campaign's performance page says: value, numerator and denominator by metric."""
    found = performance(db_session(), actor, campaign_id)
    return jsonify(
        campaign={"id": str(found.campaign.id), "name": found.campaign.name, "status": found.campaign.status.value},
        as_of=found.as_of.isoformat() if found.as_of else None,
        figures=figures_of(found.counts),
    )
