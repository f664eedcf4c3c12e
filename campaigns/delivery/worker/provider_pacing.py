"""Pacing of one provider's mails inside a sending worker, within the limits of its domains."""

import time
from collections import deque
from dataclasses import dataclass, field

from sqlalchemy import select
from sqlalchemy.orm import Session

from campaigns.delivery.models import DomainLimit
from campaigns.delivery.queue.batch import Batch
from campaigns.delivery.throttling.rate_limits import ConcurrencyLimit, TokenBucket

_MOST = 100
_LONGEST = 3600.0  # seconds; a limit that is lifted is noticed by then
HOLD = 2.0
"""Seconds' worth of mails that a worker keeps in hand for a domain; the others get another hour."""

_line: dict[str, float] = {}
"""By limit when the last one sent back has its turn; each process keeps its own."""


@dataclass(slots=True)
class ProviderPacer:
    """One provider's limit while a worker sends, and who of it stands aside."""

    name: str
    per_second: float
    bucket: TokenBucket
    places: ConcurrencyLimit
    aside: deque[tuple[Batch, int]] = field(default_factory=deque)
    """(batch, position), first come first."""

    @property
    def full(self) -> bool:
        """Whether as many stand aside as will be sent soon."""
        return len(self.aside) >= max(self.per_second * HOLD, 1) if self.per_second else len(self.aside) >= _MOST

    def pause(self) -> float:
        """0 when a mail may go now, and it counts as gone; else seconds to wait."""
        wait = self.bucket.wait()
        if wait:
            return wait
        if self.places.enter():
            return 0.0
        self.bucket.put_back()
        return 0.2

    def turn(self) -> float:
        """Seconds to wait for one of many: a little longer than the one before."""
        if not self.per_second:
            return HOLD
        now = time.monotonic()
        _line[self.name] = max(_line.get(self.name, 0.0), now + HOLD) + 1 / self.per_second
        return min(_line[self.name] - now, _LONGEST)


def limited(session: Session) -> dict[str, ProviderPacer]:
    """By domain what holds for it; nothing for domains without a limit."""
    found: dict[str, ProviderPacer] = {}
    for row in session.scalars(select(DomainLimit).where(DomainLimit.active.is_(True)).order_by(DomainLimit.id)):
        if row.per_second or row.at_once:
            name = f"domains:{row.id}"
            one = ProviderPacer(
                name, row.per_second, TokenBucket(name, row.per_second), ConcurrencyLimit(name, row.at_once)
            )
            found |= {domain: one for domain in row.domains if domain not in found}
    return found
