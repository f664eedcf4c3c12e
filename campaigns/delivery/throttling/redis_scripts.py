"""Lua scripts on the broker's Redis, for state that workers share while they send.

An unreachable server is not an error: the caller falls back to limits per process, and the server is tried again after
ten seconds.
"""

import time

from redis import Redis, RedisError
from redis.backoff import NoBackoff
from redis.retry import Retry

from campaigns import config

_AWAY = 10.0  # Seconds until an unreachable server is tried again.
_known: tuple[str, "Redis | None", float] | None = None


def asked(script: str, key: str, *arguments: object) -> list[object] | None:
    """The result of a Lua ``script`` with one ``key``, always as a list; None when the server is unreachable."""
    broker = _broker()
    if broker is None:
        return None
    try:
        answer = broker.eval(script, 1, key, *map(str, arguments))
    except RedisError:
        _lose()
        return None
    return answer if isinstance(answer, list) else [answer]


def _broker() -> "Redis | None":
    global _known
    settings = config.settings()
    if _known is not None and _known[0] == settings.redis_url and (_known[1] or time.monotonic() < _known[2]):
        return _known[1]
    if settings.embedded_broker and not settings.broker_socket.exists():
        _lose()
        return None
    url = f"unix://{settings.broker_socket}" if settings.embedded_broker else settings.redis_url
    once = Retry(NoBackoff(), 0)  # The client's default retries would block the mails for seconds.
    client = Redis.from_url(url, socket_timeout=0.5, socket_connect_timeout=0.5, retry=once)
    _known = (settings.redis_url, client, 0.0)
    return _known[1]


def _lose() -> None:
    global _known
    _known = (config.settings().redis_url, None, time.monotonic() + _AWAY)
