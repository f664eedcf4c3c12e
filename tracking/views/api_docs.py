"""Documentation page of the HTTP API."""

from flask import Blueprint, render_template

from campaigns.accounts.actor import Permission
from campaigns.accounts.models import Scope
from campaigns.web.security.current_actor import actor
from tracking.conversions.event_intake import LONGEST_ID, MOST_AT_ONCE

blueprint = Blueprint("api_docs", __name__)


@blueprint.get("/api")
def page() -> str:
    actor().require(Permission.VIEW)
    return render_template(
        "pages/tracking/programs.html", scopes=list(Scope), most_at_once=MOST_AT_ONCE, longest_id=LONGEST_ID
    )
