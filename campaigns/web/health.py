"""What must work for us to call ourselves healthy: rooms register their checks when imported."""

from collections.abc import Callable
from typing import Any

from redis import Redis, RedisError
from redis.backoff import NoBackoff
from redis.retry import Retry
from sqlalchemy import text
from sqlalchemy.orm import Session

from campaigns import config

Check = Callable[[Session], dict[str, Any]]
"""Answers facts for the report; raises, or says ``{"ok": False}``, when something is wrong."""

CHECKS: dict[str, Check] = {}


def check(name: str) -> Callable[[Check], Check]:
    """Register a check: ``@check("spool")``."""

    def keep(function: Check) -> Check:
        CHECKS[name] = function
        return function

    return keep


@check("database")
def database(session: Session) -> dict[str, Any]:
    session.execute(text("SELECT 1"))
    return {}


def broker_answers(patience: float = 1.0) -> bool:
    """Whether the workers' broker can be reached from here; without it pages work, and mails wait."""
    settings = config.settings()
    once = Retry(NoBackoff(), 0)  # The client's own tries take seconds, and the page asks again anyway.
    where: dict[str, Any] = {"socket_timeout": patience, "socket_connect_timeout": patience, "retry": once}
    if settings.embedded_broker:
        broker = Redis(unix_socket_path=str(settings.broker_socket), **where)
    else:
        broker = Redis.from_url(settings.redis_url, **where)
    try:
        return bool(broker.ping())
    except RedisError:
        return False
    finally:
        broker.close()


def report(session: Session) -> tuple[bool, dict[str, Any]]:
    """Whether all is well, and what each check said; a failing check doesn't hide the others."""
    facts: dict[str, Any] = {}
    for name, function in CHECKS.items():
        try:
            facts[name] = {"ok": True} | function(session)
        except Exception as error:
            session.rollback()
            facts[name] = {"ok": False, "error": type(error).__name__}  # Strangers read this: no details.
    return all(fact["ok"] for fact in facts.values()), facts
