"""Start page after signing in: the user's to-do list and the active campaigns."""

from flask import Blueprint, render_template

from campaigns import clock
from campaigns.planning.models import Campaign, CampaignStatus
from campaigns.web.request_session import db_session
from campaigns.web.security.current_actor import actor
from tracking.metrics import campaign_list
from tracking.metrics.registry import reading
from tracking.reports import todo
from tracking.reports.timezone import our_zone
from tracking.views.reports.sparklines import spark_points

blueprint = Blueprint("home", __name__)


@blueprint.get("/today")
def page() -> str:
    running = (
        campaign_list.campaigns_like(actor(), campaign_list.CampaignFilter(status=CampaignStatus.ACTIVE))
        .order_by(Campaign.id.desc())
        .limit(5)
    )
    return render_template(
        "pages/tracking/today.html",
        agenda=todo.agenda(db_session(), actor(), our_zone()),
        lines=campaign_list.campaign_lines(db_session(), db_session().scalars(running).all(), our_zone()),
        now=clock.now(),
        reading=reading,
        keys=campaign_list.FIGURES,
        spark_points=spark_points,
        days=campaign_list.SPARK_DAYS,
    )
