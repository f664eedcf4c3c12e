"""One figure, with the very rows behind it."""

from flask import Blueprint, Response, render_template, stream_with_context

from campaigns import db
from campaigns.accounts import audit
from campaigns.accounts.actor import Permission
from campaigns.errors import NotFound
from campaigns.language import N_
from campaigns.web.database import db_session
from campaigns.web.guards import actor
from campaigns.web.pagination import page_of
from tracking import asking, events, evidence, exports, performance
from tracking.days import our_zone
from tracking.figures import figures_of
from tracking.metrics import METRICS
from tracking.models import TrafficLabel
from tracking.screening import RULES

blueprint = Blueprint("figures", __name__)

PAGE_SIZE = 50


@blueprint.get("/campaigns/<int:campaign_id>/figures/<key>")
def page(campaign_id: int, key: str) -> str:
    actor().require(Permission.PERSONAL)
    session, question, zone = db_session(), asking.question(), our_zone()
    campaign, _ = performance.find_campaign(session, campaign_id), _known(key)
    told, as_of = figures_of(session, actor(), campaign_id, question, zone)
    rows = found = None
    if evidence.has_rows(key):
        found = evidence.evidence(session, actor(), campaign_id, key, question.asked(zone))
        rows = page_of(session, found.rows, found.keys, size=PAGE_SIZE)
    return render_template(
        "pages/tracking/figure.html",
        campaign=campaign,
        figure=told[key],
        found=found,
        page=rows,
        parts=evidence.parts(key),
        figures=told,
        as_of=as_of,
        activities=events.activities_of(session, campaign_id),
        question=question,
        rules=RULES,
        label_of=lambda label: TrafficLabel(int(label)).label,
    )


@blueprint.get("/campaigns/<int:campaign_id>/figures/<key>.csv")
def csv(campaign_id: int, key: str) -> Response:
    actor().require(Permission.EXPORT)
    question = asking.question()
    with db.transaction() as session:
        performance.find_campaign(session, campaign_id)
        found = evidence.evidence(session, actor(), campaign_id, _known(key), question.asked(our_zone()))
        activities = events.activities_of(session, campaign_id)
        audit.record(session, actor(), "export rows", "campaign", campaign_id, figure=key, period=question.period.key)
    lines = exports.evidence_csv(evidence.all_rows(actor(), found), activities)
    response = Response(stream_with_context(line.encode() for line in lines), mimetype="text/csv")
    response.headers.set("Content-Disposition", "attachment", filename=f"campaign-{campaign_id}-{key}.csv")
    response.headers["Cache-Control"] = "no-store"
    return response


def _known(key: str) -> str:
    if key not in METRICS:
        raise NotFound(N_("There is no such figure."))
    return key
