"""For people who write programs: what the house's API takes and answers."""

from flask import Blueprint, render_template

from campaigns.accounts.actor import Permission
from campaigns.accounts.models import Scope
from campaigns.web.guards import actor
from tracking.reporting import LONGEST_ID, MOST_AT_ONCE

blueprint = Blueprint("programs", __name__)


@blueprint.get("/api")
def page() -> str:
    actor().require(Permission.VIEW)
    return render_template(
        "pages/tracking/programs.html", scopes=list(Scope), most_at_once=MOST_AT_ONCE, longest_id=LONGEST_ID
    )
