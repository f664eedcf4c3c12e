"""One contact's story."""

from datetime import UTC, datetime

from flask import Blueprint, render_template, request

from campaigns.web.database import db_session
from campaigns.web.guards import actor
from tracking import timeline

blueprint = Blueprint("timeline", __name__)


@blueprint.get("/contacts/<int:contact_id>/timeline")
def contact(contact_id: int) -> str:
    found = timeline.story(db_session(), actor(), contact_id, before=_instant(request.args.get("before", "")))
    return render_template("pages/tracking/_timeline.html", story=found, step=timeline.Step)


def _instant(text: str) -> datetime | None:
    try:
        at = datetime.fromisoformat(text)
        return at.astimezone(UTC) if at.tzinfo else None
    except (ValueError, OverflowError):
        return None
