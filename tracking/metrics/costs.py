"""Costs of activities within a period: each cost is spread evenly over the activity's days.

Amounts are exact to the cent. The cents are rounded cumulatively, so adjacent periods add up to the whole cost.
"""

from dataclasses import dataclass
from datetime import date, datetime, timedelta
from decimal import Decimal

from campaigns.clock import now
from tracking.counters.periods import Window

CENT = Decimal("0.01")
ZERO_COST = Decimal("0.00")


@dataclass(frozen=True, slots=True)
class Cost:
    """The cost entered for an activity, in the organisation's currency, and the dates of the activity."""

    amount: Decimal | None
    starts_on: date | None
    ends_on: date | None
    launched_at: datetime | None

    def amount_within(self, window: Window) -> Decimal | None:
        """Return the part of the cost that falls into the window's days.

        The activity's days run from ``starts_on``, else from the local day of its launch, to ``ends_on``; without an
        end the whole cost falls on the first day. The result is None without an amount, or when the window is limited
        and the activity has no first day. Days are counted in the window's time zone.
        """
        if self.amount is None or window.is_all_time:
            return self.amount
        zone = (window.since or window.until or now()).tzinfo
        first = self.starts_on or (self.launched_at.astimezone(zone).date() if self.launched_at else None)
        if first is None:
            return None
        days = ((max(self.ends_on, first) if self.ends_on else first) - first).days + 1
        begins = 0 if window.since is None else (window.since.date() - first).days
        ends = days if window.until is None else (_after_last_day(window.until) - first).days
        if ends <= 0 or begins >= days:
            return ZERO_COST
        return self._cost_until(ends, days) - self._cost_until(begins, days)

    def _cost_until(self, day: int, days: int) -> Decimal:
        """Return the cost of the first ``day`` of the activity's ``days`` days, rounded to the cent."""
        assert self.amount is not None
        return (self.amount * min(max(day, 0), days) / days).quantize(CENT)


def _after_last_day(until: datetime) -> date:
    """Return the first day after the window. A window that ends within a day includes that day."""
    midnight = until.hour == until.minute == until.second == until.microsecond == 0
    return until.date() if midnight else until.date() + timedelta(days=1)
