"""Pages of figures: all campaigns, one campaign's performance, and one contact's story."""

import hashlib
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any
from zoneinfo import ZoneInfo

from flask import Blueprint, Response, render_template, request
from markupsafe import Markup
from sqlalchemy.orm import Session

from campaigns import clock, setbacks
from campaigns.accounts.actor import Permission
from campaigns.delivery import relays
from campaigns.planning.models import Campaign, CampaignStatus
from campaigns.web import health as house_health
from campaigns.web.database import db_session
from campaigns.web.entrance import current_organisation
from campaigns.web.guards import actor
from campaigns.web.locale import zone
from campaigns.web.pagination import page_of
from tracking import agenda, exports, log_views, overview, performance, timeline
from tracking.health import Health, health
from tracking.metrics import METRICS, reading
from tracking.series import Series, series

blueprint = Blueprint("tracking", __name__)
blueprint.register_blueprint(log_views.blueprint)

PAGE_SIZE = 25
QUICK, SLOW = 2, 30  # seconds between two looks at the figures


@blueprint.get("/today")
def today() -> str:
    running = overview.campaigns_like(actor(), CampaignStatus.ACTIVE).order_by(Campaign.id.desc()).limit(5)
    return render_template(
        "pages/tracking/today.html",
        agenda=agenda.agenda(db_session(), actor(), _zone()),
        lines=overview.campaign_lines(db_session(), db_session().scalars(running).all(), _zone()),
        now=clock.now(),
        reading=reading,
        spark_points=spark_points,
        days=overview.SPARK_DAYS,
    )


@blueprint.get("/campaigns")
def campaigns() -> str:
    status = _status(request.args.get("status", ""))
    words = request.args.get("q", "").replace("\x00", "").strip()[:100]
    query = overview.campaigns_like(actor(), status, words)
    page = page_of(db_session(), query, [Campaign.id.desc()], size=PAGE_SIZE)
    lines = overview.campaign_lines(db_session(), page.items, _zone())
    return render_template(
        "pages/tracking/campaigns.html",
        page=page,
        lines=lines,
        status=status,
        words=words,
        statuses=list(CampaignStatus),
        reading=reading,
        spark_points=spark_points,
        days=overview.SPARK_DAYS,
    )


@blueprint.get("/campaigns/<int:campaign_id>/performance")
def performance_page(campaign_id: int) -> str:
    found = performance.performance(db_session(), actor(), campaign_id)
    body = _seal(_figures(found))
    return render_template("pages/tracking/performance.html", found=found, figures=Markup(body), metrics=METRICS)  # noqa: S704


@blueprint.get("/campaigns/<int:campaign_id>/performance/figures")
def figures(campaign_id: int) -> Response:
    return _unless_seen(_figures(performance.performance(db_session(), actor(), campaign_id)))


@blueprint.get("/campaigns/<int:campaign_id>/summary")
def summary(campaign_id: int) -> Response:
    found = performance.performance(db_session(), actor(), campaign_id)
    return _unless_seen(
        render_template("pages/tracking/_summary.html", found=found, reading=reading, pace=_pace(found))
    )


@blueprint.get("/campaigns/<int:campaign_id>/performance.csv")
def performance_csv(campaign_id: int) -> Response:
    found = performance.performance(db_session(), actor(), campaign_id)
    name = f"campaign-{campaign_id}-{clock.now().astimezone(_zone()):%Y-%m-%d}.csv"
    return Response(
        exports.figures_csv(found),
        content_type="text/csv; charset=utf-8",
        headers={"Content-Disposition": f'attachment; filename="{name}"'},
    )


@blueprint.get("/activities/<int:activity_id>/clicks")
def link_clicks(activity_id: int) -> str:
    found = performance.link_clicks(db_session(), actor(), activity_id)
    return render_template("pages/tracking/_link_clicks.html", links=found, reading=reading)


@blueprint.get("/contacts/<int:contact_id>/timeline")
def contact_timeline(contact_id: int) -> str:
    found = timeline.story(db_session(), actor(), contact_id, before=_instant(request.args.get("before", "")))
    return render_template("pages/tracking/_timeline.html", story=found, step=timeline.Step)


@house_health.check("tracking")
def _tracking_facts(session: Session) -> dict[str, Any]:
    """For machines. A late collector is told, but leaves this process healthy: a balancer that took
    the pages away for it would make an outage of a delay."""
    found = health(session)
    return {
        "well": found.well,
        "collecting": found.collecting,
        "lag_seconds": round(found.lag.total_seconds(), 1),
        "lost_hits": found.lost_hits,
        "set_aside": found.set_aside,
        "overdue": found.overdue,
        "setbacks": len(setbacks.present(session)),
    }


@blueprint.get("/health/house")
def house() -> str:
    """The same for people, with what it means."""
    actor().require(Permission.SETTINGS)
    found, trouble, broker = health(db_session()), relays.trouble(db_session()), house_health.broker_answers()
    failing = setbacks.present(db_session())
    page = "_health" if request.headers.get("HX-Request") else "health"
    return render_template(
        f"pages/tracking/{page}.html",
        found=found,
        trouble=trouble,
        broker=broker,
        setbacks=failing,
        well=_all_well(found) and broker and trouble is None and not failing,
        now=clock.now(),
    )


def _all_well(found: Health) -> bool:
    return found.well and not found.lost_hits and not found.unreadable_bytes and not found.set_aside


def spark_points(values: Sequence[int], width: int = 120, height: int = 32) -> str:
    """A line's points for SVG, highest value on top; a flat line at the bottom for nothing."""
    top = max(values, default=0) or 1
    pace = width / max(len(values) - 1, 1)
    return " ".join(f"{n * pace:.1f},{height - 2 - value / top * (height - 4):.1f}" for n, value in enumerate(values))


def _figures(found: performance.Performance) -> str:
    return render_template(
        "pages/tracking/_figures.html", found=found, chart=_chart(found), reading=reading, pace=_pace(found)
    )


def _chart(found: performance.Performance) -> Series | None:
    """The time series, once there is something on it."""
    first, last = found.first_at, found.last_at
    if first is None:
        return None
    last = max(at for at in (first, last, found.last_lead_at) if at is not None)
    if found.moving:
        last = clock.now()
    drawn = series(db_session(), found.campaign.id, _zone(), first, last)
    return None if drawn.empty else drawn


def _pace(found: performance.Performance) -> int | None:
    """Seconds until the page looks again; None when nothing will change any more."""
    if found.over:
        return None
    return QUICK if found.moving else SLOW


def _seal(body: str) -> str:
    """The fragment with its own version in the address that it asks again."""
    return body.replace("seen=?", f"seen={_version(body)}")


def _version(body: str) -> str:
    return hashlib.blake2b(body.encode(), digest_size=8).hexdigest()


def _unless_seen(body: str) -> Response:
    """The fragment, or 204 when the reader has exactly this one: then nothing on the page moves."""
    if request.args.get("seen") == _version(body):
        return Response(status=204)
    return Response(_seal(body), content_type="text/html; charset=utf-8")


def _zone() -> ZoneInfo:
    """The organisation's time zone, in which days of reports begin."""
    organisation = current_organisation()
    return (zone(organisation.timezone) if organisation else None) or ZoneInfo("UTC")


def _status(text: str) -> CampaignStatus | None:
    return CampaignStatus(text) if text in set(CampaignStatus) else None


def _instant(text: str) -> datetime | None:
    try:
        at = datetime.fromisoformat(text)
        return at.astimezone(UTC) if at.tzinfo else None
    except (ValueError, OverflowError):
        return None
