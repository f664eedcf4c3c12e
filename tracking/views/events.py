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
from campaigns.web.pages.pagination import page_of
from campaigns.web.request_session import db_session
from campaigns.web.security.current_actor import actor
from tracking.bots.rules import HUMAN_TO, RULES, SCANNER_FROM, LabelReason
from tracking.collector.user_agents import client
from tracking.metrics import performance
from tracking.models.events import NEWEST_FIRST, HitKind, TrafficLabel
from tracking.reports import event_log, exports
from tracking.reports.timezone import our_zone

blueprint = Blueprint("events", __name__)

PAGE_SIZE = 50


@blueprint.get("/campaigns/<int:campaign_id>/events")
def log(campaign_id: int) -> str:
    actor().require(Permission.PERSONAL)
    session = db_session()
    campaign = performance.find_campaign(session, campaign_id)
    activities, wanted = event_log.activities_of(session, campaign_id), _wanted()
    page = page_of(session, event_log.log(actor(), list(activities), wanted), NEWEST_FIRST, size=PAGE_SIZE)
    return render_template(
        "pages/tracking/events.html",
        campaign=campaign,
        page=page,
        activities=activities,
        wanted=wanted,
        asked={name: request.args.get(name, "") for name in ("since", "until")},
        filtered=any(request.args.get(name) for name in _QUESTIONS),
        export=f"/campaigns/{campaign_id}/events.csv?{urlencode({n: request.args.get(n, '') for n in _QUESTIONS})}",
        labels=list(TrafficLabel),
        kinds=list(HitKind),
        reasons=sorted(LabelReason, key=lambda reason: _(reason.words)),
        client=client,
    )


@blueprint.get("/campaigns/<int:campaign_id>/events.csv")
def log_csv(campaign_id: int) -> Response:
    actor().require(Permission.EXPORT)
    with db.transaction() as session:
        performance.find_campaign(session, campaign_id)
        activities = event_log.activities_of(session, campaign_id)
        asked = {name: request.args[name][:40] for name in _QUESTIONS if request.args.get(name)}
        audit.record(session, actor(), "export events", "campaign", campaign_id, **asked)
    rows = event_log.all_of(actor(), list(activities), _wanted())
    lines = exports.events_csv(rows, activities, _)
    response = Response(stream_with_context(line.encode() for line in lines), mimetype="text/csv")
    response.headers.set("Content-Disposition", "attachment", filename=f"campaign-{campaign_id}-events.csv")
    response.headers["Cache-Control"] = "no-store"
    return response


@blueprint.get("/events/<int:event_id>")
def event(event_id: int) -> str:
    told, activity, send = event_log.event_told(db_session(), actor(), event_id)
    return render_template("pages/tracking/event.html", told=told, activity=activity, send=send, **_words())


@blueprint.get("/sends/<int:send_id>")
def send(send_id: int) -> str:
    found = event_log.send_told(db_session(), actor(), send_id)
    return render_template("pages/tracking/send.html", found=found, **_words())


def _words() -> dict[str, Any]:
    return {"client": client, "span": _span, "rules": RULES, "scanner_from": SCANNER_FROM, "human_to": HUMAN_TO}


def _span(time: timedelta) -> str:
    """A duration in the reader's language, in the largest unit of which it has at least three."""
    return formatting.digits(babel.dates.format_timedelta(time, threshold=3, locale=formatting.language()))


_QUESTIONS = ("activity", "label", "reason", "kind", "link", "since", "until")


def _wanted() -> event_log.EventFilter:
    """The filter from the query string; invalid values are ignored."""
    label, kind, reason = _number("label"), _number("kind"), _number("reason")
    return event_log.EventFilter(
        activity_id=_number("activity"),
        label=TrafficLabel(label) if label in set(TrafficLabel) else None,
        reason=LabelReason(reason) if reason in set(LabelReason) else None,
        kind=HitKind(kind) if kind in set(HitKind) else None,
        link=link if (link := _number("link")) is not None and link < 2**15 else None,
        since=_instant("since"),
        until=_instant("until"),
    )


def _number(name: str) -> int | None:
    text = request.args.get(name, "")
    return int(text) if text.isascii() and text.isdigit() and len(text) < 19 else None


def _instant(name: str) -> datetime | None:
    """A ``datetime-local`` value in the organisation's time zone; None when it is invalid."""
    try:
        at = datetime.fromisoformat(request.args.get(name, ""))
    except ValueError:
        return None
    if not 1970 <= at.year < 9000:
        return None
    return at if at.tzinfo else at.replace(tzinfo=our_zone())
