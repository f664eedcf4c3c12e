"""Page of links whose UTM parameters break the naming rules, found by their visits."""

from datetime import timedelta

from flask import Blueprint, render_template, request

from campaigns import clock
from campaigns.planning import utm
from campaigns.planning.campaigns import get_campaign
from campaigns.planning.models import Campaign
from campaigns.web.pages.pagination import paginate
from campaigns.web.request_session import db_session
from campaigns.web.security.current_actor import current_actor
from tracking.channels import utm_lint
from tracking.counters.periods import LAST_DAYS
from tracking.metrics import campaign_list

blueprint = Blueprint("utm_lint", __name__)

PAGE_SIZE = 25
_MAX_CHOICES = 200


@blueprint.get("/links/check")
def page() -> str:
    """Violations of one campaign, or of all campaigns and unattributed visits. Raises NotFound."""
    session, args = db_session(), request.args
    campaign_id = args.get("campaign", 0, type=_parse_id)
    days = next((days for days in LAST_DAYS if str(days) == args.get("days")), LAST_DAYS[1])
    campaign = get_campaign(session, campaign_id) if campaign_id else None
    query, keys = utm_lint.violations_query(current_actor(), clock.now() - timedelta(days=days), campaign)
    rows = paginate(session, query, keys, size=PAGE_SIZE)
    choices = (
        campaign_list.campaigns_query(current_actor(), campaign_list.CampaignFilter())
        .order_by(Campaign.id.desc())
        .limit(_MAX_CHOICES)
    )
    return render_template(
        "pages/tracking/utm_lint.html",
        page=rows,
        breaches=utm_lint.explain_violations(session, rows.items),
        campaign=campaign,
        choices=session.scalars(choices).all(),
        days=days,
        periods=LAST_DAYS,
        fields=utm.FIELDS,
        media=sorted(set(utm.MEDIUM_BY_CHANNEL.values())),
        foreign=utm_lint.LinkKind.FOREIGN,
    )


def _parse_id(text: str) -> int:
    """Parse an id; raises ValueError outside of 32 bits, upon which ``args.get`` returns its default."""
    if int(text) not in range(2**31):
        raise ValueError(text)
    return int(text)
