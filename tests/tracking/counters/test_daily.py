"""Daily rollups and totals: equal to the sum of the 15-minute rollups in any time zone."""

from datetime import UTC, datetime, timedelta
from itertools import pairwise
from random import Random
from zoneinfo import ZoneInfo

import pytest
from sqlalchemy import Engine, delete, select, update
from sqlalchemy.orm import Session

from campaigns import db
from campaigns.accounts.models import Organisation
from tests import factories
from tests.tracking.report_fixture import Company, at
from tracking.counters import aggregation, breakdowns, daily
from tracking.counters.periods import ALL_TIME, Period, Window
from tracking.jobs import counter_check
from tracking.metrics.queries import ReportQuery, load_report_data
from tracking.metrics.series import Interval, campaign_series, interval_starts
from tracking.models.events import DailyHitRollup, HitKind, HitRollup, RollupTimeZone, TotalHitRollup, TrafficLabel
from tracking.models.visits import DailyChannelRollup, DailyVisitRollup, TotalVisitRollup, VisitRollup

ZONES = ("Asia/Tbilisi", "Asia/Tehran", "Europe/Paris")
AUTUMN = datetime(2026, 10, 20, 7, 30, tzinfo=UTC)  # Paris leaves summer time on the 25th.


def add_random_counts(session: Session, activity_id: int, seed: int, number: int = 60, by: int = 1) -> None:
    """Count hits and visits of two weeks through the collector's functions. A negative ``by`` subtracts."""
    dice, tally = Random(seed), aggregation.RollupDelta()
    connection = session.connection()
    visits = {}
    for _ in range(number):
        instant = db.to_micros(AUTUMN + timedelta(minutes=dice.randrange(14 * 24 * 60)))
        kind, link = dice.choice(((HitKind.OPEN, 0), (HitKind.CLICK, dice.randint(1, 3))))
        event = aggregation.CountedEvent(
            instant, kind, dice.choice((TrafficLabel.HUMAN, TrafficLabel.MACHINE)), activity_id, 7, link
        )
        tally.count_event(event, by)
        tally.count_unique((7, activity_id, kind, 0), instant, by)
        visits[activity_id, aggregation.bucket_start(instant), dice.randint(1, 3), int(TrafficLabel.HUMAN)] = [by] * 8
    tally.write(connection)
    daily.add_visits(connection, visits.items())
    for (id, bucket, group, label), counts in visits.items():
        row = session.get(VisitRollup, (id, db.from_micros(bucket), group, label))
        if row is None:
            row = VisitRollup(activity_id=id, bucket=db.from_micros(bucket), channel_group=group, label=label)
            session.add(row)
        for name, more in zip(daily.VISIT_COLUMNS, counts, strict=True):
            setattr(row, name, (getattr(row, name) or 0) + more)
    session.flush()


@pytest.mark.parametrize("zone", ZONES)
def test_days_equal_the_sum_of_their_buckets(session: Session, zone: str) -> None:
    factories.make_organisation(session, timezone=zone)
    one, other = (factories.make_activity(session, launched_at=AUTUMN) for _ in range(2))
    add_random_counts(session, one.id, 1)
    add_random_counts(session, other.id, 2)
    add_random_counts(session, one.id, 3, number=20, by=-1)  # As relabelling subtracts.
    assert daily.find_differences(session.connection()) == []
    days = session.scalars(select(DailyHitRollup.day)).all()
    assert {day.astimezone(ZoneInfo(zone)).hour for day in days} == {0}
    assert session.scalar(select(RollupTimeZone.time_zone)) == zone

    known = ZoneInfo(zone)
    whole = (ALL_TIME, Period(AUTUMN.date(), AUTUMN.date() + timedelta(days=6)).window(known))
    asked = [ReportQuery(window, cohort=False) for window in whole]
    by_day = [load_report_data(session, [one.campaign_id], each, links=True) for each in asked]
    drawn = campaign_series(session, one.campaign_id, known, AUTUMN, AUTUMN + timedelta(days=14))
    assert drawn.interval is Interval.DAY
    assert daily.hit_source(session, whole[1], *drawn.starts).table is DailyHitRollup
    assert daily.hit_source(session, ALL_TIME).table is TotalHitRollup
    session.execute(delete(RollupTimeZone))
    session.info.clear()
    assert daily.hit_source(session, whole[1], *drawn.starts).table is HitRollup
    by_quarter = [load_report_data(session, [one.campaign_id], each, links=True) for each in asked]
    for early, late in zip(by_day, by_quarter, strict=True):
        assert early.counts == late.counts
        assert early.hits._hits == late.hits._hits
        assert early.hits._unique_sends == late.hits._unique_sends
    assert campaign_series(session, one.campaign_id, known, AUTUMN, AUTUMN + timedelta(days=14)) == drawn


def test_hours_and_other_zones_use_15_minute_rollups(session: Session) -> None:
    factories.make_organisation(session, timezone="Asia/Tehran")
    daily.rebuild(session.connection())
    tehran, paris = ZoneInfo("Asia/Tehran"), ZoneInfo("Europe/Paris")
    first, last = AUTUMN, AUTUMN + timedelta(days=20)
    assert daily.visit_source(session, ALL_TIME).table is TotalVisitRollup
    assert (
        daily.visit_source(session, ALL_TIME, *interval_starts(first, last, tehran, Interval.WEEK)).table
        is DailyVisitRollup
    )
    assert (
        daily.visit_source(session, ALL_TIME, *interval_starts(first, last, paris, Interval.DAY)).table is VisitRollup
    )
    assert (
        daily.visit_source(session, ALL_TIME, *interval_starts(first, first, tehran, Interval.HOUR)).table
        is VisitRollup
    )
    assert daily.visit_source(session, Window(AUTUMN, None)).table is VisitRollup


def test_a_changed_zone_rebuilds_days_at_the_next_count(session: Session) -> None:
    ours = factories.make_organisation(session, timezone="Asia/Tbilisi")
    activity = factories.make_activity(session, launched_at=AUTUMN)
    add_random_counts(session, activity.id, 4)
    ours.timezone = "Europe/Paris"
    session.flush()
    assert (
        session.scalar(select(RollupTimeZone.time_zone)) == "Asia/Tbilisi"
    )  # Until the next count, days of the new zone are computed from the 15-minute rollups.
    add_random_counts(session, activity.id, 5)
    assert session.scalar(select(RollupTimeZone.time_zone)) == "Europe/Paris"
    assert daily.find_differences(session.connection()) == []


def test_days_include_counts_from_before_the_first_rebuild(session: Session) -> None:
    company = Company(session, contacts=24)
    company.campaign("Harvest", at(3))
    assert session.scalar(select(RollupTimeZone.time_zone)) is None
    before = session.scalars(select(HitRollup.events)).all()
    activity = factories.make_activity(session, launched_at=AUTUMN)
    add_random_counts(session, activity.id, 6, number=5)
    assert sum(session.scalars(select(DailyHitRollup.events))) >= sum(before) + 5
    assert daily.find_differences(session.connection()) == []


def test_a_wrong_day_is_found_and_repaired(database: Engine) -> None:
    with db.transaction() as session:
        company = Company(session, contacts=30)
        mail = company.campaign("Harvest", at(3)).activities[0].id
        daily.rebuild(session.connection())
        for table in (DailyHitRollup, TotalHitRollup):
            session.execute(update(table).where(table.activity_id == mail).values(events=table.events + 1))
    with db.transaction() as session:
        assert counter_check.find_mismatches(session, mail + 1) == []
        wrong = counter_check.rebuild(session, mail)
        assert {difference.key[0] for difference in wrong} == {"event_rollups_daily", "event_rollups_total"}
    with db.read_only_session() as session:
        assert counter_check.find_mismatches(session) == []


def test_wrong_channel_groups_and_breakdowns_are_found_and_repaired(database: Engine) -> None:
    with db.transaction() as session:
        activity = factories.make_activity(session, launched_at=AUTUMN)
        add_random_counts(session, activity.id, 8, number=6)
        # A visit that does not exist.
        breakdowns.add(session.connection(), [((activity.id, 1, 1, 1, "GE"), (1, 0, 3))])
        session.execute(update(DailyChannelRollup).values(visits=DailyChannelRollup.visits + 1))
        one = activity.id
    with db.transaction() as session:
        wrong = [
            difference
            for each in counter_check.activity_ids(session)
            for difference in counter_check.rebuild(session, each)
        ]
        assert {difference.key[0] for difference in wrong} >= {
            "channel_rollups_daily",
            "entry_page_counts",
            "device_country_counts",
        }
        assert ("entry_page_counts", one, 1, 1) in [difference.key for difference in wrong]
    with db.read_only_session() as session:
        assert counter_check.find_mismatches(session) == []


def test_days_start_where_charts_cut_them(session: Session) -> None:
    """Including zones where midnight is skipped or occurs twice."""
    for name in ("Africa/Cairo", "America/Havana", "Asia/Beirut", "Atlantic/Azores", "Europe/Paris", "Asia/Kathmandu"):
        zone, day_of = ZoneInfo(name), daily.day_start_in(name)
        instant = datetime(2026, 3, 1, tzinfo=UTC)
        starts = interval_starts(instant, instant + timedelta(days=260), zone, Interval.DAY)
        for start, following in pairwise(starts):
            began = db.to_micros(start)
            assert day_of(began) == began, (name, start)
            assert day_of(db.to_micros(following) - 900_000_000) == began, (name, start)


def test_an_unknown_time_zone_falls_back_to_utc(session: Session) -> None:
    session.add(
        Organisation(id=1, name="Acme", sender_name="", sender_email="", postal_address="", timezone="No/Where")
    )
    session.flush()
    daily.rebuild(session.connection())
    assert session.scalar(select(RollupTimeZone.time_zone)) == "UTC"
