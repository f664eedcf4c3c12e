"""Campaign list with metrics, and archiving of campaigns."""

from datetime import date
from enum import StrEnum
from typing import Any, TypeVar

from flask import Blueprint, flash, redirect, render_template, request
from flask_babel import gettext as _

from campaigns import clock
from campaigns.errors import Conflict
from campaigns.planning import campaigns
from campaigns.planning.models import Campaign, CampaignStatus, Channel, Objective
from campaigns.web.pages.error_pages import error_text
from campaigns.web.pages.form_choices import user_choices
from campaigns.web.pages.pagination import paginate
from campaigns.web.request_session import db_session
from campaigns.web.security.current_actor import current_actor
from tracking.counters.periods import LAST_DAYS, parse_period
from tracking.metrics import campaign_list
from tracking.metrics.campaign_list import CampaignFilter
from tracking.metrics.registry import METRICS, reading
from tracking.reports.timezone import organisation_zone
from tracking.views.reports.sparklines import spark_points

blueprint = Blueprint("campaign_list", __name__)

PAGE_SIZE = 25
_Member = TypeVar("_Member", bound=StrEnum)


@blueprint.get("/campaigns")
def index() -> str:
    campaign_filter, sort = _requested_filter(), request.args.get("sort", "")
    query, keys = campaign_list.campaigns_query(current_actor(), campaign_filter), _sort_keys(sort)
    if sort in campaign_list.sortable_metrics():
        query, keys = campaign_list.order_by_metric(
            db_session(), query, sort, ascending=sort in campaign_list.ASCENDING_METRICS
        )
    page = paginate(db_session(), query, keys, size=PAGE_SIZE)
    return render_template(
        "pages/tracking/campaigns.html",
        page=page,
        lines=campaign_list.campaign_rows(db_session(), page.items, organisation_zone()),
        wanted=campaign_filter,
        sort=sort,
        sorts=[(key, METRICS[key].label) for key in campaign_list.sortable_metrics()],
        least_first=campaign_list.ASCENDING_METRICS,
        narrowed=campaign_filter != CampaignFilter(),
        statuses=list(CampaignStatus),
        objectives=list(Objective),
        channels=list(Channel),
        owners=user_choices(db_session(), campaign_filter.owner_id, _("Every owner")),
        period=request.args.get("period", ""),
        periods=LAST_DAYS,
        keys=campaign_list.LIST_METRICS,
        reading=reading,
        spark_points=spark_points,
        days=campaign_list.SPARK_DAYS,
    )


@blueprint.post("/campaigns/<int:campaign_id>/archive")
def archive(campaign_id: int) -> Any:
    try:
        campaigns.archive_campaign(db_session(), current_actor(), campaigns.get_campaign(db_session(), campaign_id))
        db_session().commit()
        flash(_("Archived. The list shows it again when you ask for archived campaigns."), "success")
    except Conflict as error:
        flash(error_text(error), "warning")
    return redirect(f"/campaigns/{campaign_id}", 303)


@blueprint.post("/campaigns/<int:campaign_id>/unarchive")
def unarchive(campaign_id: int) -> Any:
    campaigns.unarchive_campaign(db_session(), current_actor(), campaigns.get_campaign(db_session(), campaign_id))
    db_session().commit()
    flash(_("The campaign is back in the list."), "success")
    return redirect(f"/campaigns/{campaign_id}", 303)


def _requested_filter() -> CampaignFilter:
    """The filter from the query string; invalid values are ignored."""
    args = request.args
    owner = args.get("owner", "")
    period = parse_period(args.get("period", ""), _today())
    return CampaignFilter(
        search=args.get("q", "").replace("\x00", "").strip()[:100],
        status=_parse_member(CampaignStatus, args.get("status", "")),
        objective=_parse_member(Objective, args.get("objective", "")),
        channel=_parse_member(Channel, args.get("channel", "")),
        owner_id=int(owner) if owner.isascii() and owner.isdecimal() and len(owner) < 18 else None,
        first=period.first,
        last=period.last,
        archived=args.get("archived") == "1",
    )


def _sort_keys(sort: str) -> list[Any]:
    return [Campaign.name, Campaign.id] if sort == "name" else [Campaign.id.desc()]


def _today() -> date:
    return clock.now().astimezone(organisation_zone()).date()


def _parse_member(kind: type[_Member], text: str) -> _Member | None:
    return kind(text) if text in set(kind) else None
