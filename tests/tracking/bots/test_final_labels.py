"""Final labels after the settle window: labels, first-seen rows, rollups and milestones change together."""

from datetime import timedelta

import pytest
from sqlalchemy import Engine

from campaigns import clock, config, db
from tests.conftest import FrozenClock
from tests.factories import make_form
from tests.tracking.collector.test_collector import check_counts, events_and_uniques
from tests.tracking.endpoints.test_pixels_and_redirects import make_link_token
from tests.tracking.fixtures import Mailing, events, get_send, make_mailing, wsgi_request
from tracking.bots import final_labels
from tracking.bots.bursts import BurstCache
from tracking.bots.rules import RULES_VERSION, LabelReason
from tracking.collector import collector
from tracking.counters import aggregation, bulk_sql
from tracking.models.events import HitKind, TrafficLabel
from tracking.spool.record_codec import Hit

WINDOW = timedelta(minutes=15)


def collect_and_label(frozen: FrozenClock) -> int:
    collector.collect_once()
    frozen.at += WINDOW
    count = final_labels.settle_due()
    check_counts()
    return count


def labels() -> list[TrafficLabel]:
    return [TrafficLabel(event.label) for event in events()]


def test_events_are_not_labelled_before_the_window_ends(database: Engine, frozen: FrozenClock) -> None:
    make_mailing().click()
    collector.collect_once()
    frozen.at += WINDOW - timedelta(seconds=1)
    assert final_labels.settle_due() == 0
    frozen.at += timedelta(seconds=1)
    assert final_labels.settle_due() == 1
    assert final_labels.settle_due() == 0
    check_counts()


def test_a_human_click_counts_as_an_open(database: Engine, frozen: FrozenClock) -> None:
    mailing, at = make_mailing(), frozen.at
    mailing.click(3)
    assert collect_and_label(frozen) == 1
    assert labels() == [TrafficLabel.HUMAN]
    row = get_send(mailing.sends[0])
    assert row.first_opened_at == row.last_opened_at == row.clicked_at == at
    assert events_and_uniques(HitKind.CLICK, TrafficLabel.HUMAN, 3) == (1, 1)
    assert events_and_uniques(HitKind.CLICK, TrafficLabel.SETTLING) == (0, 0)
    assert events_and_uniques(HitKind.OPEN, TrafficLabel.HUMAN) == (0, 1)


def test_milestones_are_the_first_and_last_human_events(database: Engine, frozen: FrozenClock) -> None:
    mailing, began = make_mailing(), frozen.at
    for minutes in (0, 20, 40):
        frozen.at = began + timedelta(minutes=minutes)
        mailing.click(1 + minutes // 20)
        frozen.at += timedelta(seconds=20)
        mailing.open()
    frozen.at += timedelta(minutes=1)
    mailing.open()
    collect_and_label(frozen)
    row = get_send(mailing.sends[0])
    assert (row.first_opened_at, row.clicked_at) == (began, began)
    assert row.last_opened_at == began + timedelta(minutes=41, seconds=20)


def test_a_gateway_sets_no_milestone(database: Engine, frozen: FrozenClock) -> None:
    mailing = make_mailing(sent_at=clock.now())
    frozen.at += timedelta(seconds=2)
    mailing.open(ip="192.0.2.1")
    for number in (1, 2, 3, 4):
        mailing.click(number)
    collect_and_label(frozen)
    assert set(labels()) == {TrafficLabel.SCANNER}
    assert get_send(mailing.sends[0]).first_opened_at is None
    assert events_and_uniques(HitKind.CLICK, TrafficLabel.SCANNER) == (4, 0)


def test_a_crowd_is_one_network_following_links_of_many_recipients(database: Engine, frozen: FrozenClock) -> None:
    mailing = make_mailing(7)
    for index in range(5):
        mailing.click(1, index, ip="9.9.9.1")
    for index in range(5):
        mailing.click(2, index, ip="10.0.0.1")
    mailing.click(1, 5, ip="8.8.8.8")
    collect_and_label(frozen)
    crowded = [bool(event.reasons & LabelReason.CROWD) for event in events()]
    assert crowded == [True] * 5 + [False] * 6


def test_a_crowd_is_found_in_small_chunks(database: Engine, frozen: FrozenClock) -> None:
    mailing = make_mailing(7)
    for index in range(7):
        frozen.at += timedelta(seconds=10)
        mailing.click(1, index, ip="9.9.9.1")
    frozen.at += timedelta(minutes=5)  # Beyond the range that the cache reads ahead.
    for index in range(4):
        mailing.click(2, index, ip="9.9.9.1")
    collector.collect_once()
    frozen.at += WINDOW
    crowds = BurstCache()
    while final_labels.settle_due(1, crowds):
        pass
    assert [bool(event.reasons & LabelReason.CROWD) for event in events()] == [True] * 7 + [False] * 4


def test_labelling_twice_and_in_small_chunks_gives_the_same_result(database: Engine, frozen: FrozenClock) -> None:
    mailing = make_mailing(3)
    for index in range(3):
        mailing.open(index), mailing.click(1, index), mailing.click(2, index)
    collector.collect_once()
    frozen.at += WINDOW
    chunks = []
    while count := final_labels.settle_due(limit=2):
        chunks.append(count)
        check_counts()
    assert sum(chunks) == 9
    before = [(event.label, event.reasons) for event in events()]
    assert final_labels.settle_due() == 0
    assert [(event.label, event.reasons) for event in events()] == before


def test_relabelling_a_click_recomputes_milestones(database: Engine, frozen: FrozenClock) -> None:
    mailing = make_mailing()
    mailing.click()
    collect_and_label(frozen)
    for label, expected in ((TrafficLabel.SCANNER, False), (TrafficLabel.HUMAN, True), (TrafficLabel.UNKNOWN, False)):
        for _ in range(2):
            with db.engine().begin() as connection:
                log = final_labels.select_events(connection, "1 = 1")
                aggregation.apply_label_changes(
                    connection, [event.with_label(label, LabelReason.BURST) for event in log], RULES_VERSION
                )
            check_counts()
        row = get_send(mailing.sends[0])
        assert [bool(row.clicked_at), bool(row.first_opened_at), bool(row.last_opened_at)] == [expected] * 3


def test_events_without_a_send_get_final_labels(database: Engine, frozen: FrozenClock) -> None:
    mailing = make_mailing()
    wsgi_request(f"/o/{mailing.anonymous_token}")
    wsgi_request(f"/c/{mailing.anonymous_token}/1")
    wsgi_request(f"/c/{mailing.anonymous_token}/1", sec_fetch_user="?1")
    assert collect_and_label(frozen) == 3
    assert labels() == [TrafficLabel.HUMAN, TrafficLabel.UNKNOWN, TrafficLabel.HUMAN]


def test_a_landing_page_view_makes_its_click_human(database: Engine, frozen: FrozenClock) -> None:
    mailing = make_mailing(sent_at=clock.now() - timedelta(seconds=30))
    with db.transaction() as session:
        slug = make_form(session).slug
    mailing.click()
    frozen.at += timedelta(seconds=2)
    wsgi_request(f"/v/{slug}", query=make_link_token(mailing.sends[0]).partition("?")[2])
    collect_and_label(frozen)
    assert labels() == [TrafficLabel.HUMAN, TrafficLabel.HUMAN]
    assert get_send(mailing.sends[0]).clicked_at is not None


def test_the_settle_window_scales(database: Engine, frozen: FrozenClock, settings: config.Settings) -> None:
    fast = {name: getattr(settings, name) for name in settings.__slots__} | {"time_scale": 60.0}
    config.set_settings(config.Settings(**fast))
    mailing = make_mailing()
    mailing.open()
    collector.collect_once()
    frozen.at += timedelta(seconds=15)
    assert final_labels.settle_due() == 1


def test_a_hit_stamped_in_the_future_waits(database: Engine, frozen: FrozenClock) -> None:
    mailing: Mailing = make_mailing()
    frozen.at += timedelta(hours=1)
    mailing.open()
    frozen.at -= timedelta(hours=1)  # The system clock was set back.
    mailing.open()
    assert collect_and_label(frozen) == 1
    frozen.at += timedelta(hours=1)
    assert final_labels.settle_due() == 1
    check_counts()


def hammering_hits(mailing: Mailing, at: int, hits: int) -> list[Hit]:
    """Hits of one program that follows the second recipient's first link a thousand times a second."""
    return [
        Hit(at + number * 1_000, int(HitKind.CLICK), 0, mailing.sends[1], 1, 0x0A0000, b"bot") for number in range(hits)
    ]


def test_a_hammered_link_does_not_make_each_chunk_read_all_events(
    database: Engine, frozen: FrozenClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(final_labels, "_MANY", 50)
    monkeypatch.setattr(
        final_labels, "_HAMMERED_SQL", final_labels._HAMMERED_SQL.replace("2001", "51").replace("2000", "50")
    )
    mailing = make_mailing(3, sent_at=frozen.at)
    frozen.at += timedelta(minutes=30)
    begun = db.to_micros(frozen.at)
    with db.engine().begin() as connection:
        collector.Collector().count(connection, 7, list(enumerate(hammering_hits(mailing, begun, 600))))
        collector.Collector().count(connection, 8, list(enumerate(hammering_hits(mailing, begun + 60_000_000, 600))))
    frozen.at += timedelta(seconds=30)
    mailing.click(1, 0), mailing.click(2, 2)
    collector.collect_once()
    check_counts()
    frozen.at += WINDOW + timedelta(hours=1)
    read: list[int] = []
    fetched = bulk_sql._fetch_all

    def counting_rows(*arguments: object) -> list[object]:
        rows = fetched(*arguments)  # type: ignore[arg-type]
        read.append(len(rows))
        return rows

    monkeypatch.setattr(bulk_sql, "_fetch_all", counting_rows)
    chunks = 0
    while final_labels.settle_due(limit=100):
        chunks += 1
    assert chunks == 13
    assert max(read) <= 600, "those of one moment"
    assert sum(read) / chunks < 1_200
    check_counts()
    whose = {event.send_id: TrafficLabel(event.label) for event in events()}
    assert whose[mailing.sends[0]] is whose[mailing.sends[2]] is TrafficLabel.HUMAN
    assert get_send(mailing.sends[1]).clicked_at is None or whose[mailing.sends[1]] is TrafficLabel.HUMAN
    assert events_and_uniques(HitKind.CLICK, TrafficLabel(whose[mailing.sends[1]]))[0] >= 1_200
