"""The collector: each hit counted exactly once, consent as of the hit, rollups that equal the rows."""

import threading
import time
from datetime import timedelta

import pytest
from sqlalchemy import Connection, Engine, delete, func, select, update

from campaigns import clock, config, db
from campaigns.audience.models import ConsentLevel
from campaigns.delivery.models import Send
from tests.conftest import FrozenClock
from tests.tracking.fixtures import BROWSER, events, get_send, make_mailing, set_tracking_consent, wsgi_request
from tracking.bots import final_labels
from tracking.collector import collector
from tracking.collector.collector import Collector
from tracking.counters import aggregation, bulk_sql
from tracking.jobs import counter_check, health
from tracking.models.events import (
    DeadLetter,
    Event,
    FirstSeen,
    HitKind,
    HitRollup,
    SpoolCheckpoint,
    TrafficLabel,
    UserAgent,
)
from tracking.spool import reader, writer
from tracking.spool.record_codec import Hit, scan
from tracking.spool.writer import SpoolWriter


def check_counts() -> None:
    with db.read_only_session() as session:
        assert counter_check.find_mismatches(session) == []


def events_and_uniques(kind: HitKind, label: TrafficLabel, link: int = 0) -> tuple[int, int]:
    with db.read_only_session() as session:
        found = session.execute(
            select(func.sum(HitRollup.events), func.sum(HitRollup.uniques)).where(
                HitRollup.kind == kind, HitRollup.label == label, HitRollup.link == link
            )
        ).one()
        return found[0] or 0, found[1] or 0


def test_hits_become_events_and_rollups(database: Engine, frozen: FrozenClock) -> None:
    mailing = make_mailing(2)
    mailing.open(0), mailing.open(0), mailing.click(1, 0), mailing.click(2, 0)
    frozen.at += timedelta(minutes=20)
    mailing.click(1, 1), mailing.click(1, 0), mailing.open(1, method="HEAD")
    assert collector.collect_once() == 7
    assert collector.collect_once() == 0
    assert events_and_uniques(HitKind.OPEN, TrafficLabel.SETTLING) == (2, 0)
    assert events_and_uniques(HitKind.OPEN, TrafficLabel.MACHINE) == (1, 0)
    assert events_and_uniques(HitKind.CLICK, TrafficLabel.SETTLING) == (4, 0)
    assert events_and_uniques(HitKind.CLICK, TrafficLabel.SETTLING, 1) == (3, 0)
    assert events_and_uniques(HitKind.CLICK, TrafficLabel.SETTLING, 2) == (1, 0)
    check_counts()


def test_first_seen_moves_when_an_earlier_hit_arrives_later(database: Engine, frozen: FrozenClock) -> None:
    mailing, first = make_mailing(), frozen.at
    for minutes in (30, 0):  # Another host's spool, or a system clock that was set back.
        frozen.at = first + timedelta(minutes=minutes)
        mailing.click()
        collector.collect_once()
        frozen.at = first + timedelta(hours=1)
        assert final_labels.settle_due() == 1
        check_counts()
    with db.read_only_session() as session:
        assert session.execute(select(FirstSeen.at, FirstSeen.kind, FirstSeen.link)).all() == [
            (first, HitKind.CLICK, 1)
        ]
    assert events_and_uniques(HitKind.OPEN, TrafficLabel.HUMAN) == (0, 1)


def test_user_agents_are_stored_once(database: Engine) -> None:
    mailing = make_mailing()
    for agent in (BROWSER, BROWSER, "", "x" * 3000, "nul\0 \xff\xa7", BROWSER):
        mailing.open(user_agent=agent)
    collector.collect_once()
    mailing.open()
    collector.collect_once()
    with db.read_only_session() as session:
        assert len(session.scalars(select(UserAgent)).all()) == 4
    assert len(events()) == 7


@pytest.mark.parametrize("level", list(ConsentLevel))
def test_consent_decides_which_personal_data_is_stored(
    database: Engine, frozen: FrozenClock, level: ConsentLevel
) -> None:
    mailing = make_mailing(level=level)
    mailing.open(), mailing.click()
    collector.collect_once()
    full = level is ConsentLevel.FULL
    assert {event.send_id for event in events()} == {mailing.sends[0] if full else None}
    row = get_send(mailing.sends[0])
    midnight = frozen.at.replace(hour=0, minute=0)
    assert row.last_opened_at == (midnight if level is ConsentLevel.DELIVERABILITY else None)
    assert row.first_opened_at is row.clicked_at is None
    check_counts()


def test_consent_applies_as_of_the_hit(database: Engine, frozen: FrozenClock) -> None:
    mailing = make_mailing(2)
    mailing.click(1, 0), mailing.click(1, 1)
    frozen.at += timedelta(minutes=1)
    with db.transaction() as session:
        set_tracking_consent(session, mailing.contacts[0], ConsentLevel.NONE, frozen.at)
    frozen.at += timedelta(minutes=1)
    mailing.click(2, 0), mailing.click(2, 1)
    frozen.at += timedelta(days=1)
    collector.collect_once()
    assert [event.send_id for event in events()] == [mailing.sends[0], mailing.sends[1], None, mailing.sends[1]]
    assert {event.activity_id for event in events()} == {mailing.activity_id}


def test_hits_without_a_recipient_are_counted(database: Engine) -> None:
    mailing = make_mailing(1)
    with db.transaction() as session:
        session.delete(session.get_one(Send, mailing.sends[0]))
    mailing.open()
    assert wsgi_request(f"/o/{mailing.anonymous_token}").status == 200
    assert wsgi_request(f"/c/{mailing.anonymous_token}/1").status == 302
    collector.collect_once()
    assert [event.send_id for event in events()] == [None] * 3
    assert events_and_uniques(HitKind.OPEN, TrafficLabel.SETTLING) == (2, 0)
    check_counts()


def test_two_collectors_count_once(database: Engine, settings: config.Settings) -> None:
    mailing = make_mailing(20)
    for index in range(20):
        mailing.click(1, index)
    with collector.collector_lock(settings.spool) as alone:
        assert alone
        assert collector.collect_once() == 0, "somebody else is this host's collector"
    # If the lock fails, the checkpoint still prevents double counting.
    one, other = Collector(), Collector()
    one._collect_spool(*next(iter(reader.list_spools(settings.spool).items())))
    mailing.click(2, 0)
    other._offsets.clear()
    for spool_name, of_spool in reader.list_spools(settings.spool).items():
        other._offsets[spool_name] = 0
        with pytest.raises(Exception):  # noqa: B017 (either of the two guards may raise first)
            other._collect_spool(spool_name, of_spool)
    assert other.collect_once() == 1
    assert len(events()) == 21
    check_counts()


def test_lost_hits_are_counted_and_shown(
    database: Engine, settings: config.Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(writer, "RETRY_SECONDS", 0.0)
    mailing = make_mailing()
    settings.spool.write_text("in the way")
    mailing.open(), mailing.open()
    with db.read_only_session() as session:
        assert health.collector_health(session).lost_hits == 2
    settings.spool.unlink()
    mailing.open()
    with db.read_only_session() as session:
        shown = health.collector_health(session)
        assert (shown.collecting, shown.lost_hits, shown.is_healthy) == (False, 0, False)
        assert shown.backlog_bytes > 0
    collector.collect_once()
    with db.read_only_session() as session:
        shown = health.collector_health(session)
    assert (shown.lost_hits, shown.backlog_bytes, shown.lag) == (2, 0, timedelta(0))
    assert shown.collected_at is not None


def test_counted_files_are_deleted(
    database: Engine, settings: config.Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reader, "_MIN_AGE_SECONDS", -1.0)
    mailing = make_mailing()
    mailing.open()
    collector = Collector()
    collector.collect_once()
    assert collector.delete_counted_files() == 0, "its writer lives"
    writer.spool_writer().close()
    assert collector.delete_counted_files() == 1
    assert collector.collect_once() == 0


def wait_for(count: int) -> None:
    deadline = time.monotonic() + 60
    while len(events()) < count:
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_the_collector_follows_a_writer(database: Engine) -> None:
    mailing, stop = make_mailing(), threading.Event()
    runner = threading.Thread(target=collector.run, args=(stop,))
    runner.start()
    try:
        time.sleep(0.5)
        mailing.open()
        wait_for(1)
    finally:
        stop.set()
        runner.join()
    assert len(events()) == 1


def test_hits_are_counted_after_a_database_outage(database: Engine, settings: config.Settings) -> None:
    mailing = make_mailing()
    mailing.click()
    db.set_engine(db.make_engine("sqlite:////nowhere/at/all.db"))
    stop = threading.Event()
    runner = threading.Thread(target=collector.run, args=(stop,))
    runner.start()
    time.sleep(0.3)
    mailing.open()
    db.set_engine(database)
    wait_for(2)
    stop.set()
    runner.join()
    assert len(events()) == 2
    check_counts()


def test_rebuild_repairs_wrong_counters(database: Engine, frozen: FrozenClock) -> None:
    mailing = make_mailing(3)
    for index in range(3):
        mailing.click(1, index), mailing.open(index)
    collector.collect_once()
    frozen.at += timedelta(hours=1)
    final_labels.settle_due()
    with db.transaction() as session:
        session.execute(update(HitRollup).values(events=HitRollup.events + 1))
        session.execute(delete(FirstSeen).where(FirstSeen.send_id == mailing.sends[0]))
    with db.transaction() as session:
        assert len(counter_check.rebuild(session)) > 3
    check_counts()


def test_a_spool_of_many_files_is_counted_in_chunks(
    database: Engine, settings: config.Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    mailing = make_mailing(3)
    writer = SpoolWriter(settings.spool, rotate_bytes=2_000)
    at = db.to_micros(clock.now())
    for number in range(500):
        writer.append(Hit(at + number, 2, 0, mailing.sends[number % 3], 1 + number % 4, number, b"agent"))
    assert collector.collect_once() == 500
    with db.read_only_session() as session:
        assert session.scalar(select(func.count()).select_from(Event)) == 500
        assert session.scalars(select(SpoolCheckpoint.lost)).all() == [0]
    check_counts()


def test_a_record_that_cannot_be_counted_becomes_a_dead_letter(database: Engine, settings: config.Settings) -> None:
    mailing, writer = make_mailing(2), SpoolWriter(settings.spool)
    at = db.to_micros(clock.now())
    poison = [(at, 77, 1), (1 << 62, 2, 1), (at, 2, 1 << 40), (at, 2, -1)]
    for number in range(40):
        instant, kind, link = poison[number // 10] if number % 10 == 3 else (at + number, 2, 1)
        writer.append(Hit(instant, kind, 0, mailing.sends[number % 2], link, number, f"agent {number}".encode()))
    assert collector.collect_once() == 40
    assert {event.network for event in events()} == set(range(40)) - {3, 13, 23, 33}
    check_counts()
    with db.read_only_session() as session:
        assert health.collector_health(session).dead_letters == 4
        kept = session.scalars(select(DeadLetter)).all()
        assert {scan(row.record).hits[0][1].network for row in kept} == {3, 13, 23, 33}
        assert all("Error: " in row.error for row in kept)
    assert collector.collect_once() == 0


def test_dead_letters_can_be_recounted(
    database: Engine, settings: config.Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    mailing = make_mailing(3)
    real = aggregation.count_new_events

    def fails(connection: Connection, rows: list[bulk_sql.EventTuple]) -> None:
        if any(row[2] == mailing.sends[1] for row in rows):
            raise KeyError("a fault of ours")
        real(connection, rows)

    with monkeypatch.context() as patch:
        patch.setattr(aggregation, "count_new_events", fails)
        for index in range(3):
            mailing.click(index=index)
        assert collector.collect_once() == 3
        assert collector.recount_dead_letters() == 0
    assert len(events()) == 2
    assert collector.recount_dead_letters() == 1
    assert collector.recount_dead_letters() == 0
    assert {event.send_id for event in events()} == set(mailing.sends)
    check_counts()
