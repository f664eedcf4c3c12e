"""Pages of a campaign's web visits, and the page script's setup page."""

from dataclasses import replace

from babel import Locale
from flask import Blueprint, Response, render_template, request

from campaigns import clock, config
from campaigns.accounts.actor import Permission
from campaigns.content.rendering.links import own_hosts
from campaigns.planning.campaigns import get_campaign
from campaigns.web.i18n.formatting import language
from campaigns.web.pages.fragment_polling import unless_unchanged
from campaigns.web.pages.pagination import paginate
from campaigns.web.request_session import db_session
from campaigns.web.security.authentication import current_organisation
from campaigns.web.security.current_actor import current_actor
from tracking.channels.channel_groups import ChannelGroup
from tracking.metrics import web_visits
from tracking.metrics.registry import reading
from tracking.models.events import TrafficLabel
from tracking.models.visits import Device
from tracking.reports.event_log import activity_titles

blueprint = Blueprint("web_visits", __name__)

PAGE_SIZE = 25


@blueprint.get("/campaigns/<int:campaign_id>/visits")
def page(campaign_id: int) -> str:
    """The visits page; for htmx requests only the section without the list of single visits."""
    if request.headers.get("HX-Request"):
        return render_section(campaign_id)
    session, visit_page = db_session(), None
    breakdown = web_visits.visit_breakdown(session, current_actor(), campaign_id)
    if current_actor().may(Permission.PERSONAL):
        query = web_visits.visit_ids(current_actor(), list(activity_titles(session, campaign_id)))
        visit_page = paginate(session, query, web_visits.NEWEST_FIRST, size=PAGE_SIZE)
        visit_page = replace(
            visit_page, items=list(web_visits.visits_by_id(session, current_actor(), visit_page.items))
        )
    return render_template(
        "pages/tracking/visits.html",
        found=breakdown,
        campaign=get_campaign(session, campaign_id),
        campaign_id=campaign_id,
        page=visit_page,
        country=_country_name,
        group=ChannelGroup,
        device=Device,
        label=TrafficLabel,
        whole=True,
        reading=reading,
    )


def render_section(campaign_id: int) -> str:
    """The section of visits on the performance page."""
    return render_template(
        "pages/tracking/_visits.html",
        found=web_visits.visit_breakdown(db_session(), current_actor(), campaign_id),
        campaign_id=campaign_id,
        country=_country_name,
        whole=False,
        reading=reading,
    )


@blueprint.get("/site")
def site() -> str:
    """The script tag to install, and for each host whether visits arrive."""
    current_actor().require(Permission.PLAN)
    return render_template("pages/tracking/page_script.html", source=config.settings().tracking_url, **_site_status())


@blueprint.get("/site/seen")
def seen() -> Response:
    current_actor().require(Permission.PLAN)
    return unless_unchanged(render_template("pages/tracking/_site_heartbeats.html", **_site_status()))


def _site_status() -> dict[str, object]:
    organisation = current_organisation()
    last_visits = web_visits.last_seen_sites(db_session())
    declared = list(organisation.own_hosts) if organisation else []
    hosts = [*declared, *sorted(own_hosts(()) - set(declared))]
    return {
        "hosts": [(host, last_visits.get(host.partition(":")[0])) for host in hosts],
        "declared": declared,
        "now": clock.now(),
    }


def _country_name(code: str) -> str:
    """A country's name in the reader's language; '' for no country or ZZ, the CLDR code of an unknown region."""
    return str(Locale.parse(language()).territories.get(code, code)) if code not in ("", "ZZ") else ""
