"""Click map of a mail: each link's share of the clicks, drawn over the mail as sent."""

from flask import Blueprint, Response, render_template

from campaigns.accounts.actor import Permission
from campaigns.web.request_session import db_session
from campaigns.web.security.current_actor import current_actor
from tracking import report_query
from tracking.metrics.registry import reading
from tracking.reports import click_map

blueprint = Blueprint("click_map", __name__)

_CONTENT_SECURITY_POLICY = (
    "default-src 'none'; img-src https: http:; style-src 'unsafe-inline'; form-action 'none'; base-uri 'none'; "
    "frame-ancestors 'self'; sandbox"
)


@blueprint.get("/activities/<int:activity_id>/heat")
def page(activity_id: int) -> str:
    current_actor().require(Permission.VIEW)
    link_shares = click_map.build_click_map(
        db_session(), current_actor(), activity_id, report_query.read_traffic_filter().clicks_metric
    )
    return render_template(
        "pages/tracking/click_map.html",
        found=link_shares,
        reading=reading,
        who=report_query.read_traffic_filter(),
        everybody=list(report_query.TrafficFilter),
    )


@blueprint.get("/activities/<int:activity_id>/heat/mail")
def mail(activity_id: int) -> Response:
    current_actor().require(Permission.VIEW)
    link_shares = click_map.build_click_map(
        db_session(), current_actor(), activity_id, report_query.read_traffic_filter().clicks_metric
    )
    response = Response(click_map.render_click_map(db_session(), link_shares))
    response.headers["Content-Security-Policy"] = _CONTENT_SECURITY_POLICY
    response.headers["X-Frame-Options"] = "SAMEORIGIN"
    response.headers["Referrer-Policy"] = "no-referrer"
    response.headers["Cache-Control"] = "no-store"
    return response
