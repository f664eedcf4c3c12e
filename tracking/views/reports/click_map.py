"""Click map of a mail: each link's share of the clicks, drawn over the mail as sent."""

from flask import Blueprint, Response, render_template

from campaigns.accounts.actor import Permission
from campaigns.web.request_session import db_session
from campaigns.web.security.current_actor import actor
from tracking import report_query
from tracking.metrics.registry import reading
from tracking.reports import click_map

blueprint = Blueprint("click_map", __name__)

_POLICY = (
    "default-src 'none'; img-src https: http:; style-src 'unsafe-inline'; form-action 'none'; base-uri 'none'; "
    "frame-ancestors 'self'; sandbox"
)


@blueprint.get("/activities/<int:activity_id>/heat")
def page(activity_id: int) -> str:
    actor().require(Permission.VIEW)
    found = click_map.warmth(db_session(), actor(), activity_id, report_query.who().metric)
    return render_template(
        "pages/tracking/heat.html",
        found=found,
        reading=reading,
        who=report_query.who(),
        everybody=list(report_query.TrafficFilter),
    )


@blueprint.get("/activities/<int:activity_id>/heat/mail")
def mail(activity_id: int) -> Response:
    actor().require(Permission.VIEW)
    found = click_map.warmth(db_session(), actor(), activity_id, report_query.who().metric)
    response = Response(click_map.painted(db_session(), found))
    response.headers["Content-Security-Policy"] = _POLICY
    response.headers["X-Frame-Options"] = "SAMEORIGIN"
    response.headers["Referrer-Policy"] = "no-referrer"
    response.headers["Cache-Control"] = "no-store"
    return response
