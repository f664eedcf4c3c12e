"""In-memory rate limit per network for public endpoints.

It slows robots down and is not exact: each web process allows the full number.
"""

import threading
from collections.abc import Callable

from campaigns import clock
from campaigns.errors import RateLimited
from campaigns.i18n import N_
from campaigns.web.client_ip import network_of

_MAX_BUCKETS = 50_000


class RateLimit:
    """Token bucket: ``count`` calls in ``seconds`` for each network, refilled continuously."""

    def __init__(self, count: int, seconds: float, now: Callable[[], float] = clock.monotonic) -> None:
        self._count = count
        self._rate = count / seconds
        self._now = now
        self._lock = threading.Lock()
        self._buckets: dict[str, tuple[float, float]] = {}

    def check_ip(self, ip: str) -> None:
        """Count one call of this address's network. Raises RateLimited, which becomes a page with status 429."""
        self.check_key(network_of(ip))

    def check_key(self, key: str) -> None:
        """Count one call of ``key``. Raises RateLimited."""
        now = self._now()
        with self._lock:
            # Removed and inserted again, so that the dictionary is ordered by last use.
            calls_left, at = self._buckets.pop(key, (float(self._count), now))
            calls_left = min(float(self._count), calls_left + max(0.0, now - at) * self._rate)
            self._buckets[key] = (max(0.0, calls_left - 1), now) if calls_left >= 1 else (calls_left, now)
            if len(self._buckets) > _MAX_BUCKETS:
                self._buckets.pop(next(iter(self._buckets)))
        if calls_left < 1:
            raise RateLimited(N_("That was too often. Please wait %(seconds)s seconds."), (1 - calls_left) / self._rate)
