"""In-memory rate limit per network for public endpoints.

It slows robots down and is not exact: each web process allows the full number.
"""

import threading
from collections.abc import Callable

from campaigns import clock
from campaigns.errors import RateLimited
from campaigns.i18n import N_
from campaigns.web.client_ip import network_of

_MOST_KEPT = 50_000


class RateLimit:
    """Token bucket: ``count`` calls in ``seconds`` for each network, refilled continuously."""

    def __init__(self, count: int, seconds: float, source: Callable[[], float] = clock.steady) -> None:
        self._count = count
        self._rate = count / seconds
        self._source = source
        self._lock = threading.Lock()
        self._left: dict[str, tuple[float, float]] = {}

    def check(self, ip: str) -> None:
        """Count one call of this address's network. Raises RateLimited, which becomes a page with status 429."""
        self.count(network_of(ip))

    def count(self, key: str) -> None:
        """Count one call of ``key``. Raises RateLimited."""
        now = self._source()
        with self._lock:
            # Removed and inserted again, so that the dictionary is ordered by last use.
            left, at = self._left.pop(key, (float(self._count), now))
            left = min(float(self._count), left + max(0.0, now - at) * self._rate)
            self._left[key] = (max(0.0, left - 1), now) if left >= 1 else (left, now)
            if len(self._left) > _MOST_KEPT:
                self._left.pop(next(iter(self._left)))
        if left < 1:
            raise RateLimited(N_("That was too often. Please wait %(seconds)s seconds."), (1 - left) / self._rate)
