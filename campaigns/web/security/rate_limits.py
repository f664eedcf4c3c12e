"""A small limit for public doors, each network by itself, kept in this process's memory.

It slows robots down; it is no accounting. Several web processes each allow the full number.
"""

import threading
from collections.abc import Callable

from campaigns import clock
from campaigns.errors import RateLimited
from campaigns.i18n import N_
from campaigns.web.client_ip import network_of

_MOST_KEPT = 50_000


class RateLimit:
    """``count`` calls in ``seconds`` for each network, refilled steadily (a token bucket)."""

    def __init__(self, count: int, seconds: float, source: Callable[[], float] = clock.steady) -> None:
        self._count = count
        self._rate = count / seconds
        self._source = source
        self._lock = threading.Lock()
        self._left: dict[str, tuple[float, float]] = {}

    def check(self, ip: str) -> None:
        """Count one call. Raises TooMany, which becomes a page with status 429."""
        self.count(network_of(ip))

    def count(self, key: str) -> None:
        """The same for whom ``key`` stands for."""
        now = self._source()
        with self._lock:
            left, at = self._left.pop(key, (float(self._count), now))  # Popped: the newest stand last.
            left = min(float(self._count), left + max(0.0, now - at) * self._rate)
            self._left[key] = (max(0.0, left - 1), now) if left >= 1 else (left, now)
            if len(self._left) > _MOST_KEPT:
                self._left.pop(next(iter(self._left)))
        if left < 1:
            raise RateLimited(N_("That was too often. Please wait %(seconds)s seconds."), (1 - left) / self._rate)
