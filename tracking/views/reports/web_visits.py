"""Pages of a campaign's web visits, and the page script's setup page."""

from dataclasses import replace

from babel import Locale
from flask import Blueprint, Response, render_template, request

from campaigns import clock, config
from campaigns.accounts.actor import Permission
from campaigns.content.rendering.links import own_hosts
from campaigns.planning.campaigns import campaign_of
from campaigns.web.i18n.formatting import language
from campaigns.web.pages.fragment_polling import unless_seen
from campaigns.web.pages.pagination import page_of
from campaigns.web.request_session import db_session
from campaigns.web.security.authentication import current_organisation
from campaigns.web.security.current_actor import actor
from tracking.channels.channel_groups import ChannelGroup
from tracking.metrics import web_visits
from tracking.metrics.registry import reading
from tracking.models.events import TrafficLabel
from tracking.models.visits import Device
from tracking.reports.event_log import activities_of

blueprint = Blueprint("web_visits", __name__)

PAGE_SIZE = 25


@blueprint.get("/campaigns/<int:campaign_id>/visits")
def page(campaign_id: int) -> str:
    """The visits page; for htmx requests only the section without the list of single visits."""
    if request.headers.get("HX-Request"):
        return section(campaign_id)
    session, each = db_session(), None
    found = web_visits.breakdown(session, actor(), campaign_id)
    if actor().may(Permission.PERSONAL):
        query = web_visits.visits_like(actor(), list(activities_of(session, campaign_id)))
        each = page_of(session, query, web_visits.NEWEST_FIRST, size=PAGE_SIZE)
        each = replace(each, items=list(web_visits.visits_of(session, actor(), each.items)))
    return render_template(
        "pages/tracking/visits.html",
        found=found,
        campaign=campaign_of(session, campaign_id),
        campaign_id=campaign_id,
        page=each,
        country=_country,
        group=ChannelGroup,
        device=Device,
        label=TrafficLabel,
        whole=True,
        reading=reading,
    )


def section(campaign_id: int) -> str:
    """The section of visits on the performance page."""
    return render_template(
        "pages/tracking/_visits.html",
        found=web_visits.breakdown(db_session(), actor(), campaign_id),
        campaign_id=campaign_id,
        country=_country,
        whole=False,
        reading=reading,
    )


@blueprint.get("/site")
def site() -> str:
    """The script tag to install, and for each host whether visits arrive."""
    actor().require(Permission.PLAN)
    return render_template("pages/tracking/site.html", source=config.settings().tracking_url, **_seen())


@blueprint.get("/site/seen")
def seen() -> Response:
    actor().require(Permission.PLAN)
    return unless_seen(render_template("pages/tracking/_site_seen.html", **_seen()))


def _seen() -> dict[str, object]:
    ours = current_organisation()
    heard = web_visits.sites(db_session())
    declared = list(ours.own_hosts) if ours else []
    hosts = [*declared, *sorted(own_hosts(()) - set(declared))]
    return {
        "hosts": [(host, heard.get(host.partition(":")[0])) for host in hosts],
        "declared": declared,
        "now": clock.now(),
    }


def _country(code: str) -> str:
    """A country's name in the reader's language; '' for no country or ZZ, the CLDR code of an unknown region."""
    return str(Locale.parse(language()).territories.get(code, code)) if code not in ("", "ZZ") else ""
