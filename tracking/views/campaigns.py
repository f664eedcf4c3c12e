"""All campaigns, with what they brought."""

from flask import Blueprint, render_template, request

from campaigns.planning.models import Campaign, CampaignStatus
from campaigns.web.database import db_session
from campaigns.web.guards import actor
from campaigns.web.pagination import page_of
from tracking import listing
from tracking.metrics import reading
from tracking.views.days import our_zone
from tracking.views.sparks import spark_points

blueprint = Blueprint("campaigns", __name__)

PAGE_SIZE = 25


@blueprint.get("/campaigns")
def index() -> str:
    status = _status(request.args.get("status", ""))
    words = request.args.get("q", "").replace("\x00", "").strip()[:100]
    query = listing.campaigns_like(actor(), status, words)
    page = page_of(db_session(), query, [Campaign.id.desc()], size=PAGE_SIZE)
    lines = listing.campaign_lines(db_session(), page.items, our_zone())
    return render_template(
        "pages/tracking/campaigns.html",
        page=page,
        lines=lines,
        status=status,
        words=words,
        statuses=list(CampaignStatus),
        reading=reading,
        spark_points=spark_points,
        days=listing.SPARK_DAYS,
    )


def _status(text: str) -> CampaignStatus | None:
    return CampaignStatus(text) if text in set(CampaignStatus) else None
