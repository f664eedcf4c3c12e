"""Retry schedule of deferred mails and failing relays."""

import random
from datetime import datetime, timedelta

from campaigns import clock

# 5, 15, 30, 60 minutes, then every three hours; 48 hours in total.
_DELAY_MINUTES = (5, 15, 30, 60, *(180,) * 15)
MAX_ATTEMPTS = len(_DELAY_MINUTES)
_RELAY_PAUSE_SECONDS = (5, 10, 20, 40, 60)  # seconds; short, because a relay is usually near and our own


def next_attempt_at(attempts: int, at: datetime) -> datetime | None:
    """The time at which a mail deferred ``attempts`` times is due again; None when it should be given up.

    Jitter of ±5 % spreads mails that were deferred together.
    """
    if not 1 <= attempts <= MAX_ATTEMPTS:
        return None
    return at + clock.scaled(_DELAY_MINUTES[attempts - 1] * 60 * random.uniform(0.95, 1.05))


def relay_pause(failures: int) -> timedelta:
    """The pause of a relay after ``failures`` consecutive failures, 5 to 60 seconds."""
    return timedelta(seconds=_RELAY_PAUSE_SECONDS[min(failures, len(_RELAY_PAUSE_SECONDS)) - 1])
