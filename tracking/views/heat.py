"""Where a mail was clicked: each link's share of the clicks, laid over the mail as it was sent."""

from flask import Blueprint, Response, render_template

from campaigns.accounts.actor import Permission
from campaigns.web.database import db_session
from campaigns.web.guards import actor
from tracking import asking, heat
from tracking.metrics import reading

blueprint = Blueprint("heat", __name__)

_POLICY = (
    "default-src 'none'; img-src https: http:; style-src 'unsafe-inline'; form-action 'none'; base-uri 'none'; "
    "frame-ancestors 'self'; sandbox"
)


@blueprint.get("/activities/<int:activity_id>/heat")
def page(activity_id: int) -> str:
    actor().require(Permission.VIEW)
    found = heat.warmth(db_session(), actor(), activity_id, asking.who().metric)
    return render_template(
        "pages/tracking/heat.html", found=found, reading=reading, who=asking.who(), everybody=list(asking.TrafficFilter)
    )


@blueprint.get("/activities/<int:activity_id>/heat/mail")
def mail(activity_id: int) -> Response:
    actor().require(Permission.VIEW)
    found = heat.warmth(db_session(), actor(), activity_id, asking.who().metric)
    response = Response(heat.painted(db_session(), found))
    response.headers["Content-Security-Policy"] = _POLICY
    response.headers["X-Frame-Options"] = "SAMEORIGIN"
    response.headers["Referrer-Policy"] = "no-referrer"
    response.headers["Cache-Control"] = "no-store"
    return response
