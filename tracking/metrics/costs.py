"""What activities cost in a stretch of time: each cost is spread evenly over the activity's days.

To the cent, and so that adjacent periods add up to the whole.
"""

from dataclasses import dataclass
from datetime import date, datetime, timedelta
from decimal import Decimal

from campaigns.clock import now
from tracking.counters.periods import Window

CENT = Decimal("0.01")
NOTHING = Decimal("0.00")


@dataclass(frozen=True, slots=True)
class Cost:
    """What was entered for an activity, and when it ran."""

    amount: Decimal | None
    starts_on: date | None
    ends_on: date | None
    launched_at: datetime | None

    def within(self, window: Window) -> Decimal | None:
        """The part that falls into the window's days; None without an amount, or when it has no day.

        Its days are those from its start, else from its launch, to its end; without an end it is that one day.
        """
        if self.amount is None or window.whole:
            return self.amount
        zone = (window.since or window.until or now()).tzinfo
        first = self.starts_on or (self.launched_at.astimezone(zone).date() if self.launched_at else None)
        if first is None:
            return None
        days = ((max(self.ends_on, first) if self.ends_on else first) - first).days + 1
        begins = 0 if window.since is None else (window.since.date() - first).days
        ends = days if window.until is None else (_after_last_day(window.until) - first).days
        if ends <= 0 or begins >= days:
            return NOTHING
        return self._until(ends, days) - self._until(begins, days)

    def _until(self, day: int, days: int) -> Decimal:
        """What the first ``day`` of its days cost."""
        assert self.amount is not None
        return (self.amount * min(max(day, 0), days) / days).quantize(CENT)


def _after_last_day(until: datetime) -> date:
    """A period ends at a midnight; a window that ends within a day holds that day."""
    midnight = until.hour == until.minute == until.second == until.microsecond == 0
    return until.date() if midnight else until.date() + timedelta(days=1)
