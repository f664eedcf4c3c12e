"""Report periods: whole local days, and the previous period of the same length."""

from dataclasses import dataclass
from datetime import date, datetime, timedelta
from zoneinfo import ZoneInfo

LAST_DAYS = (7, 28, 90)
_MAX_LENGTH = timedelta(days=3653)


@dataclass(frozen=True, slots=True)
class Window:
    """A half-open range of instants; None leaves an end open."""

    since: datetime | None = None
    until: datetime | None = None

    @property
    def is_all_time(self) -> bool:
        return self.since is None and self.until is None


ALL_TIME = Window()


@dataclass(frozen=True, slots=True)
class Period:
    """Local days from ``first`` to ``last``, both included; None for all time."""

    first: date | None = None
    last: date | None = None
    days: int | None = None
    """Number of days of "the last n days"; None for chosen dates."""

    @property
    def is_all_time(self) -> bool:
        return self.first is None

    @property
    def key(self) -> str:
        """The period in URLs; :func:`parse_period` reads it."""
        if self.first is None or self.last is None:
            return "whole"
        return str(self.days) if self.days else f"{self.first.isoformat()}..{self.last.isoformat()}"

    def window(self, zone: ZoneInfo) -> Window:
        """From the start of the first local day to the end of the last; with a clock change a day has 23
        or 25 hours.
        """
        if self.first is None or self.last is None:
            return ALL_TIME
        return Window(day_start(self.first, zone), day_start(self.last + timedelta(days=1), zone))

    @property
    def previous(self) -> "Period | None":
        """The same number of days just before; None for all time."""
        if self.first is None or self.last is None:
            return None
        length = self.last - self.first
        return Period(self.first - length - timedelta(days=1), self.first - timedelta(days=1))


def parse_period(key: str, today: date) -> Period:
    """The period with this key: ``whole``, ``7``, ``28``, ``90`` or ``2026-11-01..2026-11-07``.

    An invalid key gives all time.
    """
    if key in {str(days) for days in LAST_DAYS}:
        return Period(today - timedelta(days=int(key) - 1), today, int(key))
    first, _, last = key.partition("..")
    try:
        chosen = Period(date.fromisoformat(first), date.fromisoformat(last))
    except ValueError:
        return Period()
    if chosen.first is None or chosen.last is None or not is_plausible_range(chosen.first, chosen.last):
        return Period()
    return chosen


def is_plausible_range(first: date, last: date) -> bool:
    """Whether the dates are in order, at most ten years apart, and between 1990 and 2200."""
    return date(1990, 1, 1) <= first <= last <= date(2200, 1, 1) and last - first <= _MAX_LENGTH


def day_start(day: date, zone: ZoneInfo) -> datetime:
    """The start of a local day."""
    return datetime(day.year, day.month, day.day, tzinfo=zone)
