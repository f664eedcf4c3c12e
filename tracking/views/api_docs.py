"""Documentation page of the HTTP API."""

from flask import Blueprint, render_template

from campaigns.accounts.actor import Permission
from campaigns.accounts.models import Scope
from campaigns.web.security.current_actor import current_actor
from tracking.conversions.event_intake import MAX_EVENTS_PER_REQUEST, MAX_ID_LENGTH

blueprint = Blueprint("api_docs", __name__)


@blueprint.get("/api")
def page() -> str:
    current_actor().require(Permission.VIEW)
    return render_template(
        "pages/tracking/api_docs.html",
        scopes=list(Scope),
        most_at_once=MAX_EVENTS_PER_REQUEST,
        longest_id=MAX_ID_LENGTH,
    )
