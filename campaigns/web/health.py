"""Health checks; packages register theirs when they are imported."""

from collections.abc import Callable
from typing import Any

from redis import Redis, RedisError
from redis.backoff import NoBackoff
from redis.retry import Retry
from sqlalchemy import text
from sqlalchemy.orm import Session

from campaigns import config

Check = Callable[[Session], dict[str, Any]]
"""Returns details for the report; raises, or returns ``{"ok": False}``, when something is wrong."""

CHECKS: dict[str, Check] = {}


def register_check(name: str) -> Callable[[Check], Check]:
    """Decorator that registers a check: ``@register_check("spool")``."""

    def register(function: Check) -> Check:
        CHECKS[name] = function
        return function

    return register


@register_check("database")
def database(session: Session) -> dict[str, Any]:
    session.execute(text("SELECT 1"))
    return {}


def is_broker_reachable(timeout: float = 1.0) -> bool:
    """Whether the Celery broker can be reached from here. Without it pages work, but mails wait."""
    settings = config.settings()
    no_retries = Retry(NoBackoff(), 0)  # The client's own retries take seconds, and the page polls anyway.
    options: dict[str, Any] = {"socket_timeout": timeout, "socket_connect_timeout": timeout, "retry": no_retries}
    if settings.embedded_broker:
        broker = Redis(unix_socket_path=str(settings.broker_socket), **options)
    else:
        broker = Redis.from_url(settings.redis_url, **options)
    try:
        return bool(broker.ping())
    except RedisError:
        return False
    finally:
        broker.close()


def run_checks(session: Session) -> tuple[bool, dict[str, Any]]:
    """Whether all checks pass, and the details of each; a failing check doesn't hide the others."""
    results: dict[str, Any] = {}
    for name, function in CHECKS.items():
        try:
            results[name] = {"ok": True} | function(session)
        except Exception as error:
            session.rollback()
            results[name] = {"ok": False, "error": type(error).__name__}  # Public endpoint: no details.
    return all(fact["ok"] for fact in results.values()), results
