"""When mail may be sent: quiet hours of the house and the window of an activity, by the recipient's own clock.

An instant is open when the wall clock of the recipient's zone shows an open minute of an open day, so an hour
that a zone skips is never waited for, and one that it repeats counts both times.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta, tzinfo
from functools import lru_cache
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from campaigns.accounts.models import Organisation
from campaigns.planning.models import Activity

_DAYS_AHEAD = 9
"""A week, and what zones that change their day may add."""
_STEP = timedelta(hours=6)
_MIDNIGHT = time(0)


@dataclass(frozen=True, slots=True)
class SendWindow:
    """``days``: 1 (Monday) to 7; empty means all. Equal hours, or None, mean all day (quiet: never)."""

    days: str = ""
    start: time | None = None
    end: time | None = None
    quiet_start: time | None = None
    quiet_end: time | None = None

    def __bool__(self) -> bool:
        return bool(self.days) or self._between != (None, None) or self._quiet != (None, None)

    @property
    def _between(self) -> tuple[time | None, time | None]:
        return (self.start, self.end) if self.start != self.end else (None, None)

    @property
    def _quiet(self) -> tuple[time | None, time | None]:
        return (self.quiet_start, self.quiet_end) if self.quiet_start != self.quiet_end else (None, None)

    @property
    def edges(self) -> set[time]:
        """Where on a day it may open."""
        return {each for each in (_MIDNIGHT, self.start, self.quiet_end) if each is not None}

    def shows_open(self, wall: datetime) -> bool:
        """Whether it is open when the recipient's clock shows ``wall``."""
        if self.days and str(wall.isoweekday()) not in self.days:
            return False
        return _within(wall.time(), *self._between, otherwise=True) and not _within(
            wall.time(), *self._quiet, otherwise=False
        )

    @property
    def never_opens(self) -> bool:
        """Whether the quiet hours leave nothing of the window."""
        edges = (datetime.combine(date(2024, 1, day), edge) for day in range(1, 8) for edge in self.edges)
        return not any(self.shows_open(wall) for wall in edges)


def _within(wall: time, start: time | None, end: time | None, *, otherwise: bool) -> bool:
    if start is None and end is None:
        return otherwise
    start, end = start or _MIDNIGHT, end or _MIDNIGHT
    return start <= wall < end if start < end else wall >= start or wall < end


def window_of(activity: Activity, house: Organisation) -> SendWindow:
    """The house's own mail (tests, passwords, what programs ask for) knows no hours."""
    if activity.built_in is not None:
        return SendWindow()
    return SendWindow(
        activity.email.window_days,
        activity.email.window_from,
        activity.email.window_until,
        house.quiet_from,
        house.quiet_until,
    )


def opening(window: SendWindow, zone: str, at: datetime) -> datetime | None:
    """The first instant from ``at`` on at which mail may be sent in ``zone``; None if that is never."""
    if not window:
        return at
    found = _opening(window, zone, at.astimezone(UTC).replace(second=0, microsecond=0))
    return max(found, at) if found is not None else None


@lru_cache(4096)
def _opening(window: SendWindow, zone: str, minute: datetime) -> datetime | None:
    """Of a whole minute: windows open and close, and clocks change, at whole ones."""
    there = ZoneInfo(zone)
    instants = sorted({minute, *_candidates(window, there, minute)})
    return next((each for each in instants if each >= minute and window.shows_open(each.astimezone(there))), None)


def _candidates(window: SendWindow, there: tzinfo, at: datetime) -> Iterator[datetime]:
    """Every instant at which it may begin to be open: edges of the local days, and changes of the clock."""
    today = at.astimezone(there).date()
    for ahead in range(_DAYS_AHEAD):
        for edge in window.edges:
            for fold in (0, 1):
                yield datetime.combine(today + timedelta(ahead), edge.replace(fold=fold), there).astimezone(UTC)
    for step in range(int(timedelta(_DAYS_AHEAD) / _STEP)):
        begin = at + step * _STEP
        if begin.astimezone(there).utcoffset() != (begin + _STEP).astimezone(there).utcoffset():
            yield _change(there, begin, begin + _STEP)


def _change(there: tzinfo, before: datetime, after: datetime) -> datetime:
    """The instant between the two at which the zone's offset changes."""
    offset = before.astimezone(there).utcoffset()
    while after - before > timedelta(seconds=1):
        middle = (before + (after - before) / 2).replace(microsecond=0)
        if middle.astimezone(there).utcoffset() == offset:
            before = middle
        else:
            after = middle
    return after


def known_zone(name: str | None, house: Organisation) -> str:
    """The contact's zone, else the house's, else UTC."""
    return next((zone for zone in (name, house.timezone) if zone and _exists(zone)), "UTC")


@lru_cache(1024)
def _exists(zone: str) -> bool:
    try:
        ZoneInfo(zone)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        return False
    return True
