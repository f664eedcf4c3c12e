"""What one campaign brought."""

from flask import Blueprint, Response, render_template
from markupsafe import Markup

from campaigns import clock
from campaigns.web.database import db_session
from campaigns.web.freshness import seal, unless_seen
from campaigns.web.guards import actor
from tracking import exports, performance
from tracking.metrics import METRICS, reading
from tracking.series import Series, series
from tracking.views.days import our_zone

blueprint = Blueprint("performance", __name__)

QUICK, SLOW = 2, 30  # seconds between two looks at the figures


@blueprint.get("/campaigns/<int:campaign_id>/performance")
def page(campaign_id: int) -> str:
    found = performance.performance(db_session(), actor(), campaign_id)
    body = seal(_figures(found))
    return render_template("pages/tracking/performance.html", found=found, figures=Markup(body), metrics=METRICS)  # noqa: S704


@blueprint.get("/campaigns/<int:campaign_id>/performance/figures")
def figures(campaign_id: int) -> Response:
    return unless_seen(_figures(performance.performance(db_session(), actor(), campaign_id)))


@blueprint.get("/campaigns/<int:campaign_id>/summary")
def summary(campaign_id: int) -> Response:
    found = performance.performance(db_session(), actor(), campaign_id)
    return unless_seen(render_template("pages/tracking/_summary.html", found=found, reading=reading, pace=_pace(found)))


@blueprint.get("/campaigns/<int:campaign_id>/performance.csv")
def csv(campaign_id: int) -> Response:
    found = performance.performance(db_session(), actor(), campaign_id)
    name = f"campaign-{campaign_id}-{clock.now().astimezone(our_zone()):%Y-%m-%d}.csv"
    return Response(
        exports.figures_csv(found),
        content_type="text/csv; charset=utf-8",
        headers={"Content-Disposition": f'attachment; filename="{name}"'},
    )


@blueprint.get("/activities/<int:activity_id>/clicks")
def link_clicks(activity_id: int) -> str:
    found = performance.link_clicks(db_session(), actor(), activity_id)
    return render_template("pages/tracking/_link_clicks.html", links=found, reading=reading)


def _figures(found: performance.Performance) -> str:
    return render_template(
        "pages/tracking/_figures.html", found=found, chart=_chart(found), reading=reading, pace=_pace(found)
    )


def _chart(found: performance.Performance) -> Series | None:
    """The time series, once there is something on it."""
    first, last = found.first_at, found.last_at
    if first is None:
        return None
    last = max(at for at in (first, last, found.last_lead_at) if at is not None)
    if found.moving:
        last = clock.now()
    drawn = series(db_session(), found.campaign.id, our_zone(), first, last)
    return None if drawn.empty else drawn


def _pace(found: performance.Performance) -> int | None:
    """Seconds until the page looks again; None when nothing will change any more."""
    if found.over:
        return None
    return QUICK if found.moving else SLOW
