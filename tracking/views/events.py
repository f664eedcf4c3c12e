"""Pages of the event log: a campaign's events, and the label of one event or send with its reasons."""

from datetime import datetime, timedelta
from typing import Any
from urllib.parse import urlencode

import babel.dates
from flask import Blueprint, Response, render_template, request, stream_with_context
from flask_babel import gettext as _

from campaigns import db
from campaigns.accounts import audit
from campaigns.accounts.actor import Permission
from campaigns.web.i18n import formatting
from campaigns.web.pages.pagination import paginate
from campaigns.web.request_session import db_session
from campaigns.web.security.current_actor import current_actor
from tracking.bots.rules import HUMAN_MAX_SCORE, RULES_VERSION, SCANNER_MIN_SCORE, LabelReason
from tracking.collector.user_agents import client_and_system
from tracking.metrics import performance
from tracking.models.events import NEWEST_FIRST, HitKind, TrafficLabel
from tracking.reports import event_log, exports
from tracking.reports.timezone import organisation_zone

blueprint = Blueprint("events", __name__)

PAGE_SIZE = 50


@blueprint.get("/campaigns/<int:campaign_id>/events")
def log(campaign_id: int) -> str:
    current_actor().require(Permission.PERSONAL)
    session = db_session()
    campaign = performance.find_campaign(session, campaign_id)
    activities, event_filter = event_log.activity_titles(session, campaign_id), _requested_filter()
    page = paginate(
        session, event_log.events_query(current_actor(), list(activities), event_filter), NEWEST_FIRST, size=PAGE_SIZE
    )
    return render_template(
        "pages/tracking/events.html",
        campaign=campaign,
        page=page,
        activities=activities,
        wanted=event_filter,
        asked={name: request.args.get(name, "") for name in ("since", "until")},
        filtered=any(request.args.get(name) for name in _FILTER_ARGS),
        export=f"/campaigns/{campaign_id}/events.csv?{urlencode({n: request.args.get(n, '') for n in _FILTER_ARGS})}",
        labels=list(TrafficLabel),
        kinds=list(HitKind),
        reasons=sorted(LabelReason, key=lambda reason: _(reason.description)),
        client=client_and_system,
    )


@blueprint.get("/campaigns/<int:campaign_id>/events.csv")
def log_csv(campaign_id: int) -> Response:
    current_actor().require(Permission.EXPORT)
    with db.transaction() as session:
        performance.find_campaign(session, campaign_id)
        activities = event_log.activity_titles(session, campaign_id)
        filter_values = {name: request.args[name][:40] for name in _FILTER_ARGS if request.args.get(name)}
        audit.record(session, current_actor(), "export events", "campaign", campaign_id, **filter_values)
    rows = event_log.stream_events(current_actor(), list(activities), _requested_filter())
    lines = exports.events_csv(rows, activities, _)
    response = Response(stream_with_context(line.encode() for line in lines), mimetype="text/csv")
    response.headers.set("Content-Disposition", "attachment", filename=f"campaign-{campaign_id}-events.csv")
    response.headers["Cache-Control"] = "no-store"
    return response


@blueprint.get("/events/<int:event_id>")
def event(event_id: int) -> str:
    explanation, activity, send = event_log.event_detail(db_session(), current_actor(), event_id)
    return render_template(
        "pages/tracking/event.html", detail=explanation, activity=activity, send=send, **_template_context()
    )


@blueprint.get("/sends/<int:send_id>")
def send(send_id: int) -> str:
    found = event_log.send_detail(db_session(), current_actor(), send_id)
    return render_template("pages/tracking/send.html", found=found, **_template_context())


def _template_context() -> dict[str, Any]:
    return {
        "client": client_and_system,
        "span": _format_duration,
        "rules": RULES_VERSION,
        "scanner_from": SCANNER_MIN_SCORE,
        "human_to": HUMAN_MAX_SCORE,
    }


def _format_duration(time: timedelta) -> str:
    """A duration in the reader's language, in the largest unit of which it has at least three."""
    return formatting.digits(babel.dates.format_timedelta(time, threshold=3, locale=formatting.language()))


_FILTER_ARGS = ("activity", "label", "reason", "kind", "link", "since", "until")


def _requested_filter() -> event_log.EventFilter:
    """The filter from the query string; invalid values are ignored."""
    label, kind, reason = _int_parameter("label"), _int_parameter("kind"), _int_parameter("reason")
    return event_log.EventFilter(
        activity_id=_int_parameter("activity"),
        label=TrafficLabel(label) if label in set(TrafficLabel) else None,
        reason=LabelReason(reason) if reason in set(LabelReason) else None,
        kind=HitKind(kind) if kind in set(HitKind) else None,
        link=link if (link := _int_parameter("link")) is not None and link < 2**15 else None,
        since=_time_parameter("since"),
        until=_time_parameter("until"),
    )


def _int_parameter(name: str) -> int | None:
    text = request.args.get(name, "")
    return int(text) if text.isascii() and text.isdigit() and len(text) < 19 else None


def _time_parameter(name: str) -> datetime | None:
    """A ``datetime-local`` value in the organisation's time zone; None when it is invalid."""
    try:
        at = datetime.fromisoformat(request.args.get(name, ""))
    except ValueError:
        return None
    if not 1970 <= at.year < 9000:
        return None
    return at if at.tzinfo else at.replace(tzinfo=organisation_zone())
