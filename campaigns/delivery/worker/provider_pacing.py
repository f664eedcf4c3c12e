"""Pacing of one provider's mails inside a sending worker, within the limits of its domains."""

import time
from collections import deque
from dataclasses import dataclass, field

from sqlalchemy import select
from sqlalchemy.orm import Session

from campaigns.delivery.models import DomainLimit
from campaigns.delivery.queue.batch import Batch
from campaigns.delivery.throttling.rate_limits import ConcurrencyLimit, TokenBucket

_MAX_PARKED = 100
_MAX_DELAY = 3600.0  # Seconds. A limit that was raised or removed takes effect within this time.
PARKED_SECONDS = 2.0
"""Seconds' worth of mails that a worker keeps parked per provider. Further ones are postponed in the database."""

_last_slot: dict[str, float] = {}
"""Limit name → monotonic time of the last slot given to a postponed mail. One per process."""


@dataclass(slots=True)
class ProviderPacer:
    """The limit of one provider during a worker's run, and the mails that are parked by it."""

    name: str
    per_second: float
    bucket: TokenBucket
    concurrency: ConcurrencyLimit
    parked: deque[tuple[Batch, int]] = field(default_factory=deque)
    """(batch, position), first in first out."""

    @property
    def is_full(self) -> bool:
        """Whether enough mails are parked: two seconds' worth, or 100 without a rate."""
        return (
            len(self.parked) >= max(self.per_second * PARKED_SECONDS, 1)
            if self.per_second
            else len(self.parked) >= _MAX_PARKED
        )

    def acquire(self) -> float:
        """Acquire a token and a slot for one mail. Returns 0 on success, else the seconds after which to try again."""
        seconds = self.bucket.acquire()
        if seconds:
            return seconds
        if self.concurrency.acquire():
            return 0.0
        self.bucket.refund()
        return 0.2

    def next_slot(self) -> float:
        """Seconds until the next free slot for a postponed mail, up to an hour. Each call takes a slot 1/rate later.

        Two seconds when the limit has no rate.
        """
        if not self.per_second:
            return PARKED_SECONDS
        now = time.monotonic()
        _last_slot[self.name] = max(_last_slot.get(self.name, 0.0), now + PARKED_SECONDS) + 1 / self.per_second
        return min(_last_slot[self.name] - now, _MAX_DELAY)


def pacers_by_domain(session: Session) -> dict[str, ProviderPacer]:
    """Recipient domain → its provider's pacer, for the domains that have an active limit."""
    pacers: dict[str, ProviderPacer] = {}
    for row in session.scalars(select(DomainLimit).where(DomainLimit.active.is_(True)).order_by(DomainLimit.id)):
        if row.per_second or row.at_once:
            name = f"domains:{row.id}"
            pacer = ProviderPacer(
                name, row.per_second, TokenBucket(name, row.per_second), ConcurrencyLimit(name, row.at_once)
            )
            pacers |= {domain: pacer for domain in row.domains if domain not in pacers}
    return pacers
