"""Start page after signing in: the user's to-do list and the active campaigns."""

from flask import Blueprint, render_template

from campaigns import clock
from campaigns.planning.models import Campaign, CampaignStatus
from campaigns.web.request_session import db_session
from campaigns.web.security.current_actor import current_actor
from tracking.metrics import campaign_list
from tracking.metrics.registry import reading
from tracking.reports import todo
from tracking.reports.timezone import organisation_zone
from tracking.views.reports.sparklines import spark_points

blueprint = Blueprint("home", __name__)


@blueprint.get("/today")
def page() -> str:
    running = (
        campaign_list.campaigns_query(current_actor(), campaign_list.CampaignFilter(status=CampaignStatus.ACTIVE))
        .order_by(Campaign.id.desc())
        .limit(5)
    )
    return render_template(
        "pages/tracking/home.html",
        agenda=todo.build_todo_list(db_session(), current_actor(), organisation_zone()),
        lines=campaign_list.campaign_rows(db_session(), db_session().scalars(running).all(), organisation_zone()),
        now=clock.now(),
        reading=reading,
        keys=campaign_list.LIST_METRICS,
        spark_points=spark_points,
        days=campaign_list.SPARK_DAYS,
    )
