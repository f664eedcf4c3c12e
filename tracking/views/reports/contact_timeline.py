"""Timeline of one contact: a fragment of the contact's page, or a page of its own without JavaScript."""

from datetime import UTC, datetime

from flask import Blueprint, render_template, request

from campaigns.web.request_session import db_session
from campaigns.web.security.current_actor import actor
from tracking.reports import contact_timeline
from tracking.reports.contact_timeline import EntryFilter

blueprint = Blueprint("contact_timeline", __name__)


@blueprint.get("/contacts/<int:contact_id>/timeline")
def contact(contact_id: int) -> str:
    wanted, people_only = request.args.get("topic", ""), request.args.get("who") == "people"
    topic = EntryFilter(wanted) if wanted in set(EntryFilter) else None
    before = _instant(request.args.get("before", ""))
    found = contact_timeline.story(
        db_session(), actor(), contact_id, before=before, topic=topic, people_only=people_only
    )
    page = "_timeline" if request.headers.get("HX-Request") else "timeline"
    return render_template(
        f"pages/tracking/{page}.html",
        story=found,
        first=before is None,
        topic=topic,
        topics=list(EntryFilter),
        people_only=people_only,
    )


def _instant(text: str) -> datetime | None:
    try:
        at = datetime.fromisoformat(text)
        return at.astimezone(UTC) if at.tzinfo else None
    except (ValueError, OverflowError):
        return None
