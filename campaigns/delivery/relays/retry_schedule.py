"""When to try again, and when to give up."""

import random
from datetime import datetime, timedelta

from campaigns import clock

# 5, 15, 30, 60 minutes, then every three hours: 48 hours in all.
_MINUTES = (5, 15, 30, 60, *(180,) * 15)
TRIES = len(_MINUTES)
_RELAY = (5, 10, 20, 40, 60)  # seconds; a relay is near, and ours


def next_try(attempts: int, at: datetime) -> datetime | None:
    """When a mail deferred ``attempts`` times is due again, with a tenth of jitter so that a
    thousand deferred at once don't return at once; None when it is time to give up."""
    if not 1 <= attempts <= TRIES:
        return None
    return at + clock.scaled(_MINUTES[attempts - 1] * 60 * random.uniform(0.95, 1.05))


def relay_pause(failures: int) -> timedelta:
    """How long to leave a relay alone that failed ``failures`` times in a row."""
    return timedelta(seconds=_RELAY[min(failures, len(_RELAY)) - 1])
