"""Health of tracking: its part of the health endpoint, and the health page."""

from typing import Any

from flask import Blueprint, render_template, request
from sqlalchemy.orm import Session

from campaigns import clock, retries
from campaigns.accounts.actor import Permission
from campaigns.delivery.relays import availability
from campaigns.web import health as web_health
from campaigns.web.request_session import db_session
from campaigns.web.security.current_actor import current_actor
from tracking.jobs.health import CollectorHealth, collector_health

blueprint = Blueprint("health", __name__)


@web_health.register_check("tracking")
def _collector_facts(session: Session) -> dict[str, Any]:
    """Health facts for monitoring.

    A late collector is reported but doesn't make this process unhealthy: a load balancer that removed
    the web process for it would turn a delay into an outage.
    """
    collector = collector_health(session)
    return {
        "well": collector.is_healthy,
        "collecting": collector.collecting,
        "lag_seconds": round(collector.lag.total_seconds(), 1),
        "lost_hits": collector.lost_hits,
        "dead_letters": collector.dead_letters,
        "overdue": collector.overdue,
        "job_failures": len(retries.current_failures(session)),
    }


@blueprint.get("/health/installation")
def installation() -> str:
    """The health page; for htmx requests only its content."""
    current_actor().require(Permission.SETTINGS)
    collector, relay_trouble, is_broker_up = (
        collector_health(db_session()),
        availability.failing_relay(db_session()),
        web_health.is_broker_reachable(),
    )
    job_failures = retries.current_failures(db_session())
    page = "_health" if request.headers.get("HX-Request") else "health"
    return render_template(
        f"pages/tracking/{page}.html",
        found=collector,
        trouble=relay_trouble,
        broker=is_broker_up,
        job_failures=job_failures,
        well=_is_collector_ok(collector) and is_broker_up and relay_trouble is None and not job_failures,
        now=clock.now(),
    )


def _is_collector_ok(collector: CollectorHealth) -> bool:
    return (
        collector.is_healthy
        and not collector.lost_hits
        and not collector.unreadable_bytes
        and not collector.dead_letters
    )
