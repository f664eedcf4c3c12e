"""Drill-down page of one figure, with the rows it is counted from."""

from flask import Blueprint, Response, render_template, stream_with_context

from campaigns import db
from campaigns.accounts import audit
from campaigns.accounts.actor import Permission
from campaigns.errors import NotFound
from campaigns.i18n import N_
from campaigns.web.pages.pagination import page_of
from campaigns.web.request_session import db_session
from campaigns.web.security.current_actor import actor
from tracking import report_query
from tracking.bots.rules import RULES
from tracking.metrics import performance
from tracking.metrics.comparison import figures_of
from tracking.metrics.registry import METRICS
from tracking.models.events import TrafficLabel
from tracking.reports import drilldown, event_log, exports
from tracking.reports.timezone import our_zone

blueprint = Blueprint("drilldown", __name__)

PAGE_SIZE = 50


@blueprint.get("/campaigns/<int:campaign_id>/figures/<key>")
def page(campaign_id: int, key: str) -> str:
    actor().require(Permission.PERSONAL)
    session, question, zone = db_session(), report_query.question(), our_zone()
    campaign, _ = performance.find_campaign(session, campaign_id), _known(key)
    told, as_of = figures_of(session, actor(), campaign_id, question, zone)
    rows = found = None
    if drilldown.has_rows(key):
        found = drilldown.evidence(session, actor(), campaign_id, key, question.asked(zone))
        rows = page_of(session, found.rows, found.keys, size=PAGE_SIZE)
    return render_template(
        "pages/tracking/figure.html",
        campaign=campaign,
        figure=told[key],
        found=found,
        page=rows,
        parts=drilldown.parts(key),
        figures=told,
        as_of=as_of,
        activities=event_log.activities_of(session, campaign_id),
        question=question,
        rules=RULES,
        label_of=lambda label: TrafficLabel(int(label)).label,
    )


@blueprint.get("/campaigns/<int:campaign_id>/figures/<key>.csv")
def csv(campaign_id: int, key: str) -> Response:
    actor().require(Permission.EXPORT)
    question = report_query.question()
    with db.transaction() as session:
        performance.find_campaign(session, campaign_id)
        found = drilldown.evidence(session, actor(), campaign_id, _known(key), question.asked(our_zone()))
        activities = event_log.activities_of(session, campaign_id)
        audit.record(session, actor(), "export rows", "campaign", campaign_id, figure=key, period=question.period.key)
    lines = exports.evidence_csv(drilldown.all_rows(actor(), found), activities)
    response = Response(stream_with_context(line.encode() for line in lines), mimetype="text/csv")
    response.headers.set("Content-Disposition", "attachment", filename=f"campaign-{campaign_id}-{key}.csv")
    response.headers["Cache-Control"] = "no-store"
    return response


def _known(key: str) -> str:
    if key not in METRICS:
        raise NotFound(N_("There is no such figure."))
    return key
