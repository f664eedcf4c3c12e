"""Pages of bounces and complaints: the list, and fragments for the pages of contacts, activities and campaigns."""

from typing import Any

from flask import Blueprint, render_template, request
from sqlalchemy import select

from campaigns import clock
from campaigns.accounts.actor import Permission
from campaigns.audience.contacts import contact_of
from campaigns.delivery.bounces.effects import queries, soft_bounces
from campaigns.delivery.bounces.models import Feedback, FeedbackType
from campaigns.delivery.views.page_data import email_activity
from campaigns.planning.campaigns import get_campaign
from campaigns.planning.models import Activity, Channel
from campaigns.web.pages.pagination import paginate
from campaigns.web.request_session import db_session
from campaigns.web.security.current_actor import current_actor

blueprint = Blueprint("feedback", __name__)


@blueprint.get("/returns")
def index() -> Any:
    current_actor().require(Permission.PERSONAL)
    session, args = db_session(), request.args
    finding = FeedbackType(args["finding"]) if args.get("finding") in set(queries.BY_SEVERITY) else None
    number = args.get("activity", "")
    activity = (
        session.get(Activity, int(number)) if number.isascii() and number.isdigit() and len(number) < 18 else None
    )
    search = args.get("q", "")[:254]
    page = paginate(
        session, queries.feedback_query(finding, activity.id if activity else None, search), [Feedback.id.desc()]
    )
    ids = {each.activity_id for each in page.items}
    titles = select(Activity.id, Activity.title).where(Activity.id.in_(ids))
    return render_template(
        "pages/delivery/feedback.html",
        page=page,
        finding=finding,
        findings=queries.BY_SEVERITY,
        activity=activity,
        words=search,
        titles={row.id: row.title for row in session.execute(titles)} if ids else {},
    )


@blueprint.get("/contacts/<int:contact_id>/returns")
def of_contact(contact_id: int) -> Any:
    current_actor().require(Permission.PERSONAL)
    contact = contact_of(db_session(), contact_id)
    return render_template(
        "pages/delivery/_contact_feedback.html",
        contact=contact,
        found=queries.feedback_of_address(db_session(), contact.email),
        soft=soft_bounces.count_soft_bounces(db_session(), contact.email, clock.now()),
        enough=soft_bounces.MIN_BOUNCES,
        weeks=soft_bounces.WINDOW.days // 7,
    )


@blueprint.get("/activities/<int:activity_id>/returns")
def of_activity(activity_id: int) -> Any:
    activity = email_activity(db_session(), activity_id)
    return _render_reasons([activity.id], f"/returns?activity={activity.id}")


@blueprint.get("/campaigns/<int:campaign_id>/returns")
def of_campaign(campaign_id: int) -> Any:
    current_actor().require(Permission.VIEW)
    campaign = get_campaign(db_session(), campaign_id)
    mailings = select(Activity.id).where(Activity.campaign_id == campaign.id, Activity.channel == Channel.EMAIL)
    ids = list(db_session().scalars(mailings))
    return _render_reasons(ids, f"/returns?activity={ids[0]}" if len(ids) == 1 else "/returns")


def _render_reasons(activity_ids: list[int], list_url: str) -> str:
    return render_template(
        "pages/delivery/_feedback_reasons.html",
        reasons=queries.bounce_reasons(db_session(), activity_ids),
        list_url=list_url,
    )
