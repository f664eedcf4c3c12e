"""Lua scripts on the broker's Redis, for state that workers share while they send.

An unreachable server is not an error: the caller falls back to limits per process, and the server is tried again after
ten seconds.
"""

import time

from redis import Redis, RedisError
from redis.backoff import NoBackoff
from redis.retry import Retry

from campaigns import config

_RETRY_AFTER = 10.0  # Seconds until an unreachable server is tried again.
_cached: tuple[str, "Redis | None", float] | None = None


def run_script(script: str, key: str, *arguments: object) -> list[object] | None:
    """The result of a Lua ``script`` with one ``key``, always as a list; None when the server is unreachable."""
    client = _get_client()
    if client is None:
        return None
    try:
        result = client.eval(script, 1, key, *map(str, arguments))
    except RedisError:
        _mark_unreachable()
        return None
    return result if isinstance(result, list) else [result]


def _get_client() -> "Redis | None":
    global _cached
    settings = config.settings()
    if _cached is not None and _cached[0] == settings.redis_url and (_cached[1] or time.monotonic() < _cached[2]):
        return _cached[1]
    if settings.embedded_broker and not settings.broker_socket.exists():
        _mark_unreachable()
        return None
    url = f"unix://{settings.broker_socket}" if settings.embedded_broker else settings.redis_url
    no_retry = Retry(NoBackoff(), 0)  # The client's default retries would block the mails for seconds.
    client = Redis.from_url(url, socket_timeout=0.5, socket_connect_timeout=0.5, retry=no_retry)
    _cached = (settings.redis_url, client, 0.0)
    return _cached[1]


def _mark_unreachable() -> None:
    global _cached
    _cached = (config.settings().redis_url, None, time.monotonic() + _RETRY_AFTER)
