"""Drill-down page of one figure, with the rows it is counted from."""

from flask import Blueprint, Response, render_template, stream_with_context

from campaigns import db
from campaigns.accounts import audit
from campaigns.accounts.actor import Permission
from campaigns.errors import NotFound
from campaigns.i18n import N_
from campaigns.web.pages.pagination import paginate
from campaigns.web.request_session import db_session
from campaigns.web.security.current_actor import current_actor
from tracking import report_query
from tracking.bots.rules import RULES_VERSION
from tracking.metrics import performance
from tracking.metrics.comparison import campaign_metrics
from tracking.metrics.registry import METRICS
from tracking.models.events import TrafficLabel
from tracking.reports import drilldown, event_log, exports
from tracking.reports.timezone import organisation_zone

blueprint = Blueprint("drilldown", __name__)

PAGE_SIZE = 50


@blueprint.get("/campaigns/<int:campaign_id>/figures/<key>")
def page(campaign_id: int, key: str) -> str:
    current_actor().require(Permission.PERSONAL)
    session, question, zone = db_session(), report_query.read_period_query(), organisation_zone()
    campaign, _ = performance.find_campaign(session, campaign_id), _require_metric(key)
    figures, as_of = campaign_metrics(session, current_actor(), campaign_id, question, zone)
    rows = evidence = None
    if drilldown.has_rows(key):
        evidence = drilldown.build_drilldown(session, current_actor(), campaign_id, key, question.report_query(zone))
        rows = paginate(session, evidence.rows, evidence.keys, size=PAGE_SIZE)
    return render_template(
        "pages/tracking/drilldown.html",
        campaign=campaign,
        figure=figures[key],
        found=evidence,
        page=rows,
        parts=drilldown.metrics_with_rows(key),
        figures=figures,
        as_of=as_of,
        activities=event_log.activity_titles(session, campaign_id),
        question=question,
        rules=RULES_VERSION,
        label_of=lambda label: TrafficLabel(int(label)).label,
    )


@blueprint.get("/campaigns/<int:campaign_id>/figures/<key>.csv")
def csv(campaign_id: int, key: str) -> Response:
    current_actor().require(Permission.EXPORT)
    question = report_query.read_period_query()
    with db.transaction() as session:
        performance.find_campaign(session, campaign_id)
        evidence = drilldown.build_drilldown(
            session, current_actor(), campaign_id, _require_metric(key), question.report_query(organisation_zone())
        )
        activities = event_log.activity_titles(session, campaign_id)
        audit.record(
            session, current_actor(), "export rows", "campaign", campaign_id, figure=key, period=question.period.key
        )
    lines = exports.drilldown_csv(drilldown.stream_rows(current_actor(), evidence), activities)
    response = Response(stream_with_context(line.encode() for line in lines), mimetype="text/csv")
    response.headers.set("Content-Disposition", "attachment", filename=f"campaign-{campaign_id}-{key}.csv")
    response.headers["Cache-Control"] = "no-store"
    return response


def _require_metric(key: str) -> str:
    if key not in METRICS:
        raise NotFound(N_("There is no such figure."))
    return key
