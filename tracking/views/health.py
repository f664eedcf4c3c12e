"""Health of tracking: its part of the health endpoint, and the health page."""

from typing import Any

from flask import Blueprint, render_template, request
from sqlalchemy.orm import Session

from campaigns import clock, retries
from campaigns.accounts.actor import Permission
from campaigns.delivery.relays import availability
from campaigns.web import health as house_health
from campaigns.web.request_session import db_session
from campaigns.web.security.current_actor import actor
from tracking.jobs.health import CollectorHealth, health

blueprint = Blueprint("health", __name__)


@house_health.check("tracking")
def _tracking_facts(session: Session) -> dict[str, Any]:
    """Health facts for monitoring.

    A late collector is reported but doesn't make this process unhealthy: a load balancer that removed
    the web process for it would turn a delay into an outage.
    """
    found = health(session)
    return {
        "well": found.well,
        "collecting": found.collecting,
        "lag_seconds": round(found.lag.total_seconds(), 1),
        "lost_hits": found.lost_hits,
        "set_aside": found.set_aside,
        "overdue": found.overdue,
        "setbacks": len(retries.present(session)),
    }


@blueprint.get("/health/house")
def house() -> str:
    """The health page; for htmx requests only its content."""
    actor().require(Permission.SETTINGS)
    found, trouble, broker = health(db_session()), availability.trouble(db_session()), house_health.broker_answers()
    failing = retries.present(db_session())
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


def _all_well(found: CollectorHealth) -> bool:
    return found.well and not found.lost_hits and not found.unreadable_bytes and not found.set_aside
