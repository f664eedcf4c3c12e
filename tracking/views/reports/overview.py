"""Overview page of all campaigns."""

from flask import Blueprint, render_template, request

from campaigns import clock
from campaigns.web.request_session import db_session
from campaigns.web.security.current_actor import actor
from tracking.counters.periods import LAST_DAYS, Period, period_of
from tracking.metrics import overview
from tracking.metrics.registry import METRICS, reading
from tracking.reports.timezone import our_zone

blueprint = Blueprint("overview", __name__)

_USUAL = 28


@blueprint.get("/overview")
def page() -> str:
    period = _period()
    return render_template(
        "pages/tracking/overview.html",
        found=overview.overview(db_session(), actor(), period, our_zone()),
        period=period,
        before=period.before,
        choices=LAST_DAYS,
        reading=reading,
        metrics=METRICS,
    )


def _period() -> Period:
    """The period from the query string, by its key or by first and last day; else the last 28 days."""
    today = clock.now().astimezone(our_zone()).date()
    first, last = request.args.get("first", ""), request.args.get("last", "")
    key = f"{first}..{last}" if first and last else request.args.get("period", "")
    period = period_of(key, today)
    return period_of(str(_USUAL), today) if period.whole else period
