"""Tests of spreading costs over days: exact to the cent, and adjacent periods add up to the whole."""

from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from zoneinfo import ZoneInfo

from tracking.counters.periods import ALL_TIME, Period, Window
from tracking.metrics.costs import Cost

PARIS = ZoneInfo("Europe/Paris")
FIRST = date(2026, 10, 24)


def window_of(first: date, last: date) -> Window:
    return Period(first, last).window(PARIS)


def test_adjacent_days_add_up_to_the_whole() -> None:
    for amount, days in (("100.00", 3), ("0.01", 7), ("99.99", 1), ("1000000.00", 11)):
        cost = Cost(Decimal(amount), FIRST, FIRST + timedelta(days=days - 1), None)
        window = [window_of(day, day) for day in (FIRST + timedelta(days=n) for n in range(-2, days + 2))]
        parts = [cost.amount_within(one) or Decimal(0) for one in window]
        assert sum(parts) == Decimal(amount)
        assert parts[:2] == parts[-2:] == [Decimal(0)] * 2
        assert max(parts[2:-2]) - min(parts[2:-2]) <= Decimal("0.01")


def test_days_of_an_activity() -> None:
    ten, late = Decimal("10.00"), datetime(2026, 10, 24, 23, 30, tzinfo=UTC)
    next_day = FIRST + timedelta(days=1)  # in Paris
    assert Cost(ten, None, None, late).amount_within(window_of(next_day, next_day)) == ten
    assert Cost(ten, None, None, late).amount_within(window_of(FIRST, FIRST)) == 0
    assert Cost(ten, FIRST, FIRST - timedelta(days=5), late).amount_within(window_of(FIRST, FIRST)) == ten, (
        "ends before it starts"
    )
    assert Cost(ten, None, FIRST + timedelta(days=2), late).amount_within(window_of(next_day, next_day)) == 5
    assert Cost(ten, None, None, None).amount_within(window_of(FIRST, FIRST)) is None
    assert Cost(ten, None, None, None).amount_within(ALL_TIME) == ten
    assert Cost(None, FIRST, None, None).amount_within(window_of(FIRST, FIRST)) is None


def test_window_without_start() -> None:
    cost = Cost(Decimal("10.00"), FIRST, FIRST + timedelta(days=9), None)
    assert cost.amount_within(Window(None, window_of(FIRST, FIRST + timedelta(days=3)).until)) == Decimal("4.00")
