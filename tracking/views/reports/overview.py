"""Overview page of all campaigns."""

from flask import Blueprint, render_template, request

from campaigns import clock
from campaigns.web.request_session import db_session
from campaigns.web.security.current_actor import current_actor
from tracking.counters.periods import LAST_DAYS, Period, parse_period
from tracking.metrics import overview
from tracking.metrics.registry import METRICS, reading
from tracking.reports.timezone import organisation_zone

blueprint = Blueprint("overview", __name__)

_DEFAULT_DAYS = 28


@blueprint.get("/overview")
def page() -> str:
    period = _requested_period()
    return render_template(
        "pages/tracking/overview.html",
        found=overview.overview(db_session(), current_actor(), period, organisation_zone()),
        period=period,
        before=period.previous,
        choices=LAST_DAYS,
        reading=reading,
        metrics=METRICS,
    )


def _requested_period() -> Period:
    """The period from the query string, by its key or by first and last day; else the last 28 days."""
    today = clock.now().astimezone(organisation_zone()).date()
    first, last = request.args.get("first", ""), request.args.get("last", "")
    key = f"{first}..{last}" if first and last else request.args.get("period", "")
    period = parse_period(key, today)
    return parse_period(str(_DEFAULT_DAYS), today) if period.is_all_time else period
