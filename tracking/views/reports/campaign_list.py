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
from campaigns.web.pages.error_pages import say
from campaigns.web.pages.form_choices import choices_of_people
from campaigns.web.pages.pagination import page_of
from campaigns.web.request_session import db_session
from campaigns.web.security.current_actor import actor
from tracking.counters.periods import LAST_DAYS, period_of
from tracking.metrics import campaign_list
from tracking.metrics.campaign_list import CampaignFilter
from tracking.metrics.registry import METRICS, reading
from tracking.reports.timezone import our_zone
from tracking.views.reports.sparklines import spark_points

blueprint = Blueprint("campaign_list", __name__)

PAGE_SIZE = 25
_Member = TypeVar("_Member", bound=StrEnum)


@blueprint.get("/campaigns")
def index() -> str:
    wanted, sort = _wanted(), request.args.get("sort", "")
    query, keys = campaign_list.campaigns_like(actor(), wanted), _plain_keys(sort)
    if sort in campaign_list.sortable():
        query, keys = campaign_list.by_figure(db_session(), query, sort, ascending=sort in campaign_list.LEAST_FIRST)
    page = page_of(db_session(), query, keys, size=PAGE_SIZE)
    return render_template(
        "pages/tracking/campaigns.html",
        page=page,
        lines=campaign_list.campaign_lines(db_session(), page.items, our_zone()),
        wanted=wanted,
        sort=sort,
        sorts=[(key, METRICS[key].label) for key in campaign_list.sortable()],
        least_first=campaign_list.LEAST_FIRST,
        narrowed=wanted != CampaignFilter(),
        statuses=list(CampaignStatus),
        objectives=list(Objective),
        channels=list(Channel),
        owners=choices_of_people(db_session(), wanted.owner_id, _("Every owner")),
        period=request.args.get("period", ""),
        periods=LAST_DAYS,
        keys=campaign_list.FIGURES,
        reading=reading,
        spark_points=spark_points,
        days=campaign_list.SPARK_DAYS,
    )


@blueprint.post("/campaigns/<int:campaign_id>/archive")
def archive(campaign_id: int) -> Any:
    try:
        campaigns.archive_campaign(db_session(), actor(), campaigns.campaign_of(db_session(), campaign_id))
        db_session().commit()
        flash(_("Archived. The list shows it again when you ask for archived campaigns."), "success")
    except Conflict as error:
        flash(say(error), "warning")
    return redirect(f"/campaigns/{campaign_id}", 303)


@blueprint.post("/campaigns/<int:campaign_id>/unarchive")
def unarchive(campaign_id: int) -> Any:
    campaigns.unarchive_campaign(db_session(), actor(), campaigns.campaign_of(db_session(), campaign_id))
    db_session().commit()
    flash(_("The campaign is back in the list."), "success")
    return redirect(f"/campaigns/{campaign_id}", 303)


def _wanted() -> CampaignFilter:
    """The filter from the query string; invalid values are ignored."""
    asked = request.args
    owner = asked.get("owner", "")
    period = period_of(asked.get("period", ""), _today())
    return CampaignFilter(
        words=asked.get("q", "").replace("\x00", "").strip()[:100],
        status=_member(CampaignStatus, asked.get("status", "")),
        objective=_member(Objective, asked.get("objective", "")),
        channel=_member(Channel, asked.get("channel", "")),
        owner_id=int(owner) if owner.isascii() and owner.isdecimal() and len(owner) < 18 else None,
        first=period.first,
        last=period.last,
        archived=asked.get("archived") == "1",
    )


def _plain_keys(sort: str) -> list[Any]:
    return [Campaign.name, Campaign.id] if sort == "name" else [Campaign.id.desc()]


def _today() -> date:
    return clock.now().astimezone(our_zone()).date()


def _member(kind: type[_Member], text: str) -> _Member | None:
    return kind(text) if text in set(kind) else None
