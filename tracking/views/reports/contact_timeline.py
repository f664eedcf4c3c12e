"""Timeline of one contact: a fragment of the contact's page, or a page of its own without JavaScript."""

from datetime import UTC, datetime

from flask import Blueprint, render_template, request

from campaigns.web.request_session import db_session
from campaigns.web.security.current_actor import current_actor
from tracking.reports import contact_timeline
from tracking.reports.contact_timeline import EntryFilter

blueprint = Blueprint("contact_timeline", __name__)


@blueprint.get("/contacts/<int:contact_id>/timeline")
def contact(contact_id: int) -> str:
    requested_topic, people_only = request.args.get("topic", ""), request.args.get("who") == "people"
    topic = EntryFilter(requested_topic) if requested_topic in set(EntryFilter) else None
    before = _parse_instant(request.args.get("before", ""))
    timeline = contact_timeline.build_timeline(
        db_session(), current_actor(), contact_id, before=before, topic=topic, people_only=people_only
    )
    page = "_timeline" if request.headers.get("HX-Request") else "timeline"
    return render_template(
        f"pages/tracking/{page}.html",
        timeline=timeline,
        first=before is None,
        topic=topic,
        topics=list(EntryFilter),
        people_only=people_only,
    )


def _parse_instant(text: str) -> datetime | None:
    try:
        at = datetime.fromisoformat(text)
        return at.astimezone(UTC) if at.tzinfo else None
    except (ValueError, OverflowError):
        return None
