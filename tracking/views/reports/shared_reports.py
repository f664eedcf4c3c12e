"""Share links of a campaign's report: list, creation, withdrawal."""

from typing import Any

from flask import Blueprint, flash, redirect, render_template, request
from flask_babel import gettext as _

from campaigns import clock, config
from campaigns.errors import ValidationFailed
from campaigns.planning.campaigns import campaign_of
from campaigns.web.pages.error_pages import say
from campaigns.web.pages.pagination import page_of
from campaigns.web.request_session import db_session
from campaigns.web.security import idempotent_forms
from campaigns.web.security.current_actor import actor
from tracking.models.events import SharedReport
from tracking.reports import shared_reports
from tracking.reports.timezone import our_zone

blueprint = Blueprint("shared_reports", __name__)


@blueprint.get("/campaigns/<int:campaign_id>/shares")
def index(campaign_id: int) -> Any:
    wanted = shared_reports.links_of(actor(), campaign_id)
    campaign = campaign_of(db_session(), campaign_id)
    return render_template(
        "pages/tracking/shares.html",
        campaign=campaign,
        page=page_of(db_session(), wanted, [SharedReport.id.desc()]),
        address=_address,
        now=clock.now(),
        days=shared_reports.DAYS,
    )


@blueprint.post("/campaigns/<int:campaign_id>/shares")
def share(campaign_id: int) -> Any:
    if there := idempotent_forms.already():
        return there
    text = request.form.get("days", "")
    campaign_of(db_session(), campaign_id)
    days = int(text) if text.isdecimal() and len(text) < 4 else 0
    try:
        shared_reports.share(db_session(), actor(), campaign_id, days=days, zone=our_zone())
    except ValidationFailed as error:
        flash(say(error.problems[0]), "danger")
        return redirect(f"/campaigns/{campaign_id}/shares", 303)
    flash(_("The link is ready. Whoever has it sees these figures, without an account."), "success")
    return idempotent_forms.made(f"/campaigns/{campaign_id}/shares")


@blueprint.post("/shares/<int:share_id>/withdraw")
def withdraw(share_id: int) -> Any:
    kept = shared_reports.withdraw(db_session(), actor(), share_id)
    db_session().commit()
    flash(_("The link opens nothing any more."), "success")
    return redirect(f"/campaigns/{kept.campaign_id}/shares", 303)


def _address(kept: SharedReport) -> str:
    return f"{config.settings().base_url}/s/{shared_reports.token_of(kept)}"
