"""Send windows: the organisation's quiet hours and an activity's days and hours, in the recipient's time zone.

An instant is open when the local wall time in the recipient's zone is an open minute of an open day. So an hour that
a DST change skips is never waited for, and an hour that it repeats is open both times.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta, tzinfo
from functools import lru_cache
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from campaigns.accounts.models import Organisation
from campaigns.planning.models import Activity

_DAYS_AHEAD = 9
"""One week, plus two days for zones that skip or repeat a calendar day (change of the date line)."""
_STEP = timedelta(hours=6)
_MIDNIGHT = time(0)


@dataclass(frozen=True, slots=True)
class SendWindow:
    """A send window in local time; false when it never restricts sending.

    ``days`` holds digits 1 (Monday) to 7, '' means all days. ``start`` and ``end`` are the activity's hours; equal
    or None means all day. ``quiet_start`` and ``quiet_end`` are the quiet hours; equal or None means none.
    """

    days: str = ""
    start: time | None = None
    end: time | None = None
    quiet_start: time | None = None
    quiet_end: time | None = None

    def __bool__(self) -> bool:
        return bool(self.days) or self._hours != (None, None) or self._quiet_hours != (None, None)

    @property
    def _hours(self) -> tuple[time | None, time | None]:
        return (self.start, self.end) if self.start != self.end else (None, None)

    @property
    def _quiet_hours(self) -> tuple[time | None, time | None]:
        return (self.quiet_start, self.quiet_end) if self.quiet_start != self.quiet_end else (None, None)

    @property
    def opening_times(self) -> set[time]:
        """The local times of day at which the window can open."""
        return {each for each in (_MIDNIGHT, self.start, self.quiet_end) if each is not None}

    def is_open_at(self, local_time: datetime) -> bool:
        """Whether the window is open at this local time of the recipient."""
        if self.days and str(local_time.isoweekday()) not in self.days:
            return False
        return _within(local_time.time(), *self._hours, default=True) and not _within(
            local_time.time(), *self._quiet_hours, default=False
        )

    @property
    def never_opens(self) -> bool:
        """Whether the quiet hours cover the whole window."""
        edges = (datetime.combine(date(2024, 1, day), edge) for day in range(1, 8) for edge in self.opening_times)
        return not any(self.is_open_at(wall) for wall in edges)


def _within(local_time: time, start: time | None, end: time | None, *, default: bool) -> bool:
    if start is None and end is None:
        return default
    start, end = start or _MIDNIGHT, end or _MIDNIGHT
    return start <= local_time < end if start < end else local_time >= start or local_time < end


def activity_window(activity: Activity, organisation: Organisation) -> SendWindow:
    """The send window of an activity. Built-in activities (test, system and API mail) have none."""
    if activity.built_in is not None:
        return SendWindow()
    return SendWindow(
        activity.email.window_days,
        activity.email.window_from,
        activity.email.window_until,
        organisation.quiet_from,
        organisation.quiet_until,
    )


def next_opening(window: SendWindow, zone: str, at: datetime) -> datetime | None:
    """The first instant, ``at`` or later, when the window is open in ``zone``; None if it never opens."""
    if not window:
        return at
    opens_at = _next_opening(window, zone, at.astimezone(UTC).replace(second=0, microsecond=0))
    return max(opens_at, at) if opens_at is not None else None


@lru_cache(4096)
def _next_opening(window: SendWindow, zone: str, minute: datetime) -> datetime | None:
    """:func:`next_opening` for a whole minute, which makes it cacheable: windows and zone offsets change only at whole
    minutes."""
    zone_info = ZoneInfo(zone)
    instants = sorted({minute, *_opening_candidates(window, zone_info, minute)})
    return next((each for each in instants if each >= minute and window.is_open_at(each.astimezone(zone_info))), None)


def _opening_candidates(window: SendWindow, zone_info: tzinfo, at: datetime) -> Iterator[datetime]:
    """Every UTC instant at which the window can open: its opening times on each local day, and offset changes.

    A local time that occurs twice is yielded for both folds.
    """
    today = at.astimezone(zone_info).date()
    for ahead in range(_DAYS_AHEAD):
        for edge in window.opening_times:
            for fold in (0, 1):
                yield datetime.combine(today + timedelta(ahead), edge.replace(fold=fold), zone_info).astimezone(UTC)
    for step in range(int(timedelta(_DAYS_AHEAD) / _STEP)):
        begin = at + step * _STEP
        if begin.astimezone(zone_info).utcoffset() != (begin + _STEP).astimezone(zone_info).utcoffset():
            yield _offset_change(zone_info, begin, begin + _STEP)


def _offset_change(zone_info: tzinfo, before: datetime, after: datetime) -> datetime:
    """The instant between ``before`` and ``after`` at which the zone's UTC offset changes, found by bisection to the
    second."""
    offset = before.astimezone(zone_info).utcoffset()
    while after - before > timedelta(seconds=1):
        middle = (before + (after - before) / 2).replace(microsecond=0)
        if middle.astimezone(zone_info).utcoffset() == offset:
            before = middle
        else:
            after = middle
    return after


def recipient_zone(name: str | None, organisation: Organisation) -> str:
    """The contact's zone ``name`` if it is known, else the organisation's, else "UTC"."""
    return next((zone for zone in (name, organisation.timezone) if zone and _zone_exists(zone)), "UTC")


@lru_cache(1024)
def _zone_exists(zone: str) -> bool:
    try:
        ZoneInfo(zone)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        return False
    return True
