"""Fragment with the channels of leads, loaded by the page of leads.

The leads package is a lower layer and must not import attribution, so its page asks by URL.
"""

from flask import Blueprint, render_template, request

from campaigns.web.request_session import db_session
from campaigns.web.security.current_actor import current_actor
from tracking.conversions import lead_channels

blueprint = Blueprint("lead_channels", __name__)

MAX_LEADS = 100


@blueprint.get("/leads/channels")
def channels() -> str:
    lead_ids = [int(text) for text in request.args.getlist("lead")[:MAX_LEADS] if text.isascii() and text.isdigit()]
    activities = lead_channels.last_touch_activities(
        db_session(), current_actor(), [one for one in lead_ids if one < 1 << 63]
    )
    return render_template("pages/tracking/_lead_channels.html", found=activities)
