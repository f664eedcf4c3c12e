"""Share links of a campaign's report: list, creation, withdrawal."""

from typing import Any

from flask import Blueprint, flash, redirect, render_template, request
from flask_babel import gettext as _

from campaigns import clock, config
from campaigns.errors import ValidationFailed
from campaigns.planning.campaigns import get_campaign
from campaigns.web.pages.error_pages import error_text
from campaigns.web.pages.pagination import paginate
from campaigns.web.request_session import db_session
from campaigns.web.security import idempotent_forms
from campaigns.web.security.current_actor import current_actor
from tracking.models.events import SharedReport
from tracking.reports import shared_reports
from tracking.reports.timezone import organisation_zone

blueprint = Blueprint("shared_reports", __name__)


@blueprint.get("/campaigns/<int:campaign_id>/shares")
def index(campaign_id: int) -> Any:
    query = shared_reports.reports_query(current_actor(), campaign_id)
    campaign = get_campaign(db_session(), campaign_id)
    return render_template(
        "pages/tracking/shared_reports.html",
        campaign=campaign,
        page=paginate(db_session(), query, [SharedReport.id.desc()]),
        address=_public_url,
        now=clock.now(),
        days=shared_reports.LIFETIMES_DAYS,
    )


@blueprint.post("/campaigns/<int:campaign_id>/shares")
def share(campaign_id: int) -> Any:
    if earlier_response := idempotent_forms.previous_result():
        return earlier_response
    text = request.form.get("days", "")
    get_campaign(db_session(), campaign_id)
    days = int(text) if text.isdecimal() and len(text) < 4 else 0
    try:
        shared_reports.create_report(db_session(), current_actor(), campaign_id, days=days, zone=organisation_zone())
    except ValidationFailed as error:
        flash(error_text(error.problems[0]), "danger")
        return redirect(f"/campaigns/{campaign_id}/shares", 303)
    flash(_("The link is ready. Whoever has it sees these figures, without an account."), "success")
    return idempotent_forms.commit_and_redirect(f"/campaigns/{campaign_id}/shares")


@blueprint.post("/shares/<int:share_id>/withdraw")
def withdraw(share_id: int) -> Any:
    shared_report = shared_reports.revoke_report(db_session(), current_actor(), share_id)
    db_session().commit()
    flash(_("The link opens nothing any more."), "success")
    return redirect(f"/campaigns/{shared_report.campaign_id}/shares", 303)


def _public_url(shared_report: SharedReport) -> str:
    return f"{config.settings().base_url}/s/{shared_reports.mint_token(shared_report)}"
