"""Stretches of time that figures are asked for: whole local days, and the stretch before of the same length."""

from dataclasses import dataclass
from datetime import date, datetime, timedelta
from zoneinfo import ZoneInfo

LAST_DAYS = (7, 28, 90)
_LONGEST = timedelta(days=3653)


@dataclass(frozen=True, slots=True)
class Window:
    """From an instant until before another; None leaves an end open."""

    since: datetime | None = None
    until: datetime | None = None

    @property
    def whole(self) -> bool:
        return self.since is None and self.until is None


WHOLE = Window()


@dataclass(frozen=True, slots=True)
class Period:
    """Local days from ``first`` to ``last``, both included; None for the whole life."""

    first: date | None = None
    last: date | None = None
    days: int | None = None
    """Of "the last n days"; None for days that somebody chose."""

    @property
    def whole(self) -> bool:
        return self.first is None

    @property
    def key(self) -> str:
        """What addresses call it."""
        if self.first is None or self.last is None:
            return "whole"
        return str(self.days) if self.days else f"{self.first.isoformat()}..{self.last.isoformat()}"

    def window(self, zone: ZoneInfo) -> Window:
        """The instants at which its first day begins and its last one is over: 23 or 25 hours are a day, too."""
        if self.first is None or self.last is None:
            return WHOLE
        return Window(midnight(self.first, zone), midnight(self.last + timedelta(days=1), zone))

    @property
    def before(self) -> "Period | None":
        """As many days, just before; None before a whole life."""
        if self.first is None or self.last is None:
            return None
        length = self.last - self.first
        return Period(self.first - length - timedelta(days=1), self.first - timedelta(days=1))


def period_of(key: str, today: date) -> Period:
    """The period that a key names: ``whole``, ``7``, ``28``, ``90`` or ``2026-11-01..2026-11-07``.

    What makes no sense is the whole life.
    """
    if key in {str(days) for days in LAST_DAYS}:
        return Period(today - timedelta(days=int(key) - 1), today, int(key))
    first, _, last = key.partition("..")
    try:
        chosen = Period(date.fromisoformat(first), date.fromisoformat(last))
    except ValueError:
        return Period()
    if chosen.first is None or chosen.last is None or not sensible(chosen.first, chosen.last):
        return Period()
    return chosen


def sensible(first: date, last: date) -> bool:
    """Whether somebody can mean these days: in order, at most ten years, and none that no clock will ever show."""
    return date(1990, 1, 1) <= first <= last <= date(2200, 1, 1) and last - first <= _LONGEST


def midnight(day: date, zone: ZoneInfo) -> datetime:
    """When a day begins there."""
    return datetime(day.year, day.month, day.day, tzinfo=zone)
