"""The first page after signing in: what waits for somebody, and what is running."""

from flask import Blueprint, render_template

from campaigns import clock
from campaigns.planning.models import Campaign, CampaignStatus
from campaigns.web.database import db_session
from campaigns.web.guards import actor
from tracking import agenda, listing
from tracking.days import our_zone
from tracking.metrics import reading
from tracking.views.sparks import spark_points

blueprint = Blueprint("today", __name__)


@blueprint.get("/today")
def page() -> str:
    running = (
        listing.campaigns_like(actor(), listing.CampaignFilter(status=CampaignStatus.ACTIVE))
        .order_by(Campaign.id.desc())
        .limit(5)
    )
    return render_template(
        "pages/tracking/today.html",
        agenda=agenda.agenda(db_session(), actor(), our_zone()),
        lines=listing.campaign_lines(db_session(), db_session().scalars(running).all(), our_zone()),
        now=clock.now(),
        reading=reading,
        keys=listing.FIGURES,
        spark_points=spark_points,
        days=listing.SPARK_DAYS,
    )
