"""Tests of send windows against a minute-by-minute search, in every time zone."""

from datetime import UTC, datetime, time, timedelta
from zoneinfo import ZoneInfo, available_timezones

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from campaigns.planning.send_windows import SendWindow, next_opening, recipient_zone
from tests.factories import make_organisation

ZONES = sorted(zone for zone in available_timezones() if "/" in zone and not zone.startswith("SystemV"))
HOURS = st.one_of(st.none(), st.builds(time, st.integers(0, 23), st.sampled_from([0, 15, 30, 59])))
MINUTE = timedelta(minutes=1)


def utc(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


START = utc("2024-01-01T00:00")


def search_by_minute(window: SendWindow, zone: ZoneInfo, at: datetime, most: timedelta) -> datetime | None:
    """Reference implementation: check every minute."""
    minute = at.replace(second=0, microsecond=0)
    while minute <= at + most:
        if window.is_open_at(minute.astimezone(zone)):
            return max(minute, at)
        minute += MINUTE
    return None


@given(
    days=st.sets(st.sampled_from("1234567")).map(lambda days: "".join(sorted(days))),
    hours=st.tuples(HOURS, HOURS),
    quiet=st.tuples(HOURS, HOURS),
    zone=st.sampled_from(ZONES),
    at=st.integers(0, 6 * 365 * 1440).map(lambda minutes: START + minutes * MINUTE),
)
@settings(max_examples=300)
@example("", (time(2, 30), time(4)), (None, None), "Europe/Berlin", utc("2026-03-29T00:10"))  # 2:30 is skipped
@example("", (time(2, 30), time(2, 45)), (None, None), "Europe/Berlin", utc("2026-03-29T00:10"))  # all of it is skipped
@example("", (time(0, 30), time(2, 30)), (None, None), "Europe/Berlin", utc("2026-10-25T00:31"))  # 2:30 comes twice
@example("", (time(0), time(1)), (None, None), "Africa/Cairo", utc("2024-04-25T12:00"))  # midnight is skipped
@example("", (None, None), (time(21), time(8)), "Australia/Lord_Howe", utc("2026-10-03T12:00"))  # DST by 30 min
@example("7", (None, None), (None, None), "Pacific/Apia", utc("2024-01-01T00:00"))
def test_opens_at_first_open_minute(
    days: str, hours: tuple[time | None, time | None], quiet: tuple[time | None, time | None], zone: str, at: datetime
) -> None:
    if None in hours:
        hours = (None, None)
    if None in quiet:
        quiet = (None, None)
    window, zone_info = SendWindow(days, *hours, *quiet), ZoneInfo(zone)
    opens_at = next_opening(window, zone, at)
    if window.never_opens:
        assert opens_at is None
        return
    assert opens_at is not None
    assert opens_at >= at
    if window:
        assert window.is_open_at(opens_at.astimezone(zone_info))
    assert opens_at == search_by_minute(
        window, zone_info, at, min(opens_at - at, timedelta(days=2)) + MINUTE
    ) or opens_at - at > timedelta(days=2)


@pytest.mark.parametrize(
    ("zone", "at", "opens"),
    [
        ("Europe/Berlin", "2026-06-01T20:00", "2026-06-02T06:00"),
        ("Europe/Berlin", "2026-01-01T20:00", "2026-01-02T07:00"),
        ("America/New_York", "2026-06-01T20:00", "2026-06-01T20:00"),
        ("Asia/Tehran", "2026-06-01T20:00", "2026-06-02T04:30"),
        ("Asia/Kathmandu", "2026-06-01T20:00", "2026-06-02T02:15"),
    ],
)
def test_quiet_hours_in_recipient_zone(zone: str, at: str, opens: str) -> None:
    window = SendWindow(quiet_start=time(21), quiet_end=time(8))
    assert next_opening(window, zone, utc(at)) == utc(opens)


def test_weekend_is_skipped() -> None:
    working = SendWindow("12345", time(9), time(17))
    assert next_opening(working, "Europe/Berlin", utc("2026-11-20T16:00")) == utc("2026-11-23T08:00")
    assert next_opening(working, "Europe/Berlin", utc("2026-11-20T15:59:59")) == utc("2026-11-20T15:59:59")


def test_empty_and_never_open_windows() -> None:
    assert not SendWindow()
    assert not SendWindow(start=time(9), end=time(9))
    assert SendWindow("1", time(9), time(10), time(8), time(11)).never_opens
    assert not SendWindow("1", time(9), time(12), time(8), time(11)).never_opens


def test_recipient_zone(session) -> None:  # type: ignore[no-untyped-def]
    organisation = make_organisation(session, timezone="Asia/Tbilisi")
    assert recipient_zone("Europe/Berlin", organisation) == "Europe/Berlin"
    assert (
        recipient_zone(None, organisation)
        == recipient_zone("", organisation)
        == recipient_zone("No/Where", organisation)
        == "Asia/Tbilisi"
    )
