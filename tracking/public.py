"""Public page of a shared report: a read-only snapshot behind a secret link, for readers without an account."""

from typing import Any

from flask import Blueprint, g, make_response, render_template, request

from campaigns.planning.models import Channel, Objective
from campaigns.web.client_ip import client_ip
from campaigns.web.i18n.formatting import LANGUAGES
from campaigns.web.request_session import db_session
from campaigns.web.security.current_actor import public
from campaigns.web.security.rate_limits import RateLimit
from tracking.reports import shared_reports
from tracking.reports.svg_lines import polyline_points

blueprint = Blueprint("tracking_public", __name__)

VIEWS_PER_MINUTE = 60
"""Page views allowed per minute and client network. Several people of one office may open a link at once."""
_view_limit = RateLimit(VIEWS_PER_MINUTE, 60)


@blueprint.get("/s/<token>")
@public
def shared(token: str) -> Any:
    """Show the snapshot behind a token. Only GET counts as a view. 404 for every kind of invalid token."""
    _view_limit.check_ip(client_ip(request.environ))
    g.language = request.accept_languages.best_match(list(LANGUAGES))  # No account, so the browser's language.
    g.referrer_policy = "no-referrer"  # The URL is the secret: a Referer header would leak it.
    report = shared_reports.find_by_token(db_session(), token)
    view = shared_reports.parse_snapshot(report)
    page = render_template(
        "public/shared.html",
        shown=view,
        kept=report,
        channel=lambda value: Channel(value).label,
        objective=Objective(view.campaign["objective"]),
        lines=polyline_points(view.chart["lines"]) if view.chart else None,
    )
    if request.method == "GET":
        shared_reports.count_view(db_session(), report)
        db_session().commit()
    response = make_response(page)
    response.headers["X-Robots-Tag"] = "noindex, nofollow"
    response.headers["Cache-Control"] = "private, no-store"
    return response
