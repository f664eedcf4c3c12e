"""Tests of relabelling: counters, milestones and credit follow the labels, one chunk at a time."""

from collections import Counter
from datetime import timedelta

import pytest
from sqlalchemy import Engine, select, update

from campaigns import clock, db
from campaigns.accounts.actor import SYSTEM
from campaigns.audience.models import Contact
from tests.conftest import FrozenClock
from tests.tracking.collector.test_collector import check_counts
from tests.tracking.conversions.test_attribution import add_submission, credit_by_model, record_leads
from tests.tracking.fixtures import add_send, events, get_send, make_mailing
from tracking.bots import final_labels
from tracking.collector import collector
from tracking.jobs import counter_check, relabel
from tracking.jobs.relabel import RelabelCount
from tracking.models.conversions import ConversionTouchpoint
from tracking.models.events import Event, HitKind, TrafficLabel


def test_relabelling_updates_counters_and_milestones(
    database: Engine, frozen: FrozenClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(relabel, "CHUNK_SIZE", 2)
    mailing, since = make_mailing(5), clock.now()
    for index in range(5):
        frozen.at += timedelta(minutes=2)
        mailing.click(index=index, ip=f"198.51.{index}.9")
    collector.collect_once()
    frozen.at += timedelta(minutes=20)
    final_labels.settle_due()
    with db.transaction() as session:  # Labels of older rules, with counters to match.
        session.execute(update(Event).values(label=TrafficLabel.SCANNER, rules=0))
        counter_check.rebuild(session)
    until = frozen.at
    expected = Counter({RelabelCount(mailing.activity_id, HitKind.CLICK, TrafficLabel.SCANNER, TrafficLabel.HUMAN): 5})
    assert relabel.relabel(SYSTEM, since, until, dry_run=True) == expected
    assert {event.label for event in events()} == {TrafficLabel.SCANNER}
    assert relabel.relabel(SYSTEM, since, since + timedelta(minutes=5)).total() == 2
    assert relabel.relabel(SYSTEM, since, until).total() == 3
    assert relabel.relabel(SYSTEM, since, until).total() == 0
    assert {event.label for event in events()} == {TrafficLabel.HUMAN}
    assert all(get_send(send).clicked_at for send in mailing.sends)
    check_counts()


def label_clicks(label: TrafficLabel, *sends: int) -> None:
    """Label the clicks of these sends as older rules did, and rebuild the counters."""
    with db.transaction() as session:
        session.execute(update(Event).where(Event.send_id.in_(sends)).values(label=label, rules=0))
        counter_check.rebuild(session)


def touchpoint_activities() -> list[int]:
    with db.read_only_session() as session:
        return list(session.scalars(select(ConversionTouchpoint.activity_id).order_by(ConversionTouchpoint.position)))


def test_relabelled_clicks_gain_and_lose_credit(
    database: Engine, frozen: FrozenClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By the present rules the first click is human, and the second, by an HTTP library, is not."""
    first, last, elsewhere, began = make_mailing(), make_mailing(0), make_mailing(), clock.now()
    with db.transaction() as session:
        contact = session.get_one(Contact, first.contacts[0])
        last.sends.append(add_send(session, last, contact, 1, frozen.at - timedelta(hours=1)).id)
    first.click()
    frozen.at += timedelta(days=2)
    last.click(user_agent="curl/8.5"), elsewhere.click()
    collector.collect_once()
    frozen.at += timedelta(minutes=20)
    final_labels.settle_due()
    label_clicks(TrafficLabel.SCANNER, first.sends[0])
    label_clicks(TrafficLabel.HUMAN, last.sends[0])
    add_submission(first.contacts[0], last.activity_id)
    frozen.at += timedelta(minutes=1)
    assert record_leads() == 1
    assert touchpoint_activities() == [last.activity_id]
    assert credit_by_model() == {"first_touch": last.activity_id, "last_touch": last.activity_id}
    relabel.relabel(SYSTEM, began, frozen.at, dry_run=True)
    assert touchpoint_activities() == [last.activity_id]
    recredited_ids: list[int] = []
    monkeypatch.setattr("tracking.jobs.lead_conversions.recredit", _recredit_spy(recredited_ids))
    assert relabel.relabel(SYSTEM, began, frozen.at).total() == 2
    assert touchpoint_activities() == [first.activity_id]
    assert credit_by_model() == {"first_touch": first.activity_id, "last_touch": first.activity_id}
    assert len(recredited_ids) == 2, "once for each activity's portion, and for no conversion besides"
    check_counts()


def _recredit_spy(recredited_ids: list[int]) -> object:
    from tracking.jobs.lead_conversions import recredit

    def spy(session: object, conversion: object) -> None:
        recredited_ids.append(conversion.id)  # type: ignore[attr-defined]
        recredit(session, conversion)  # type: ignore[arg-type]

    return spy


def test_a_conversion_long_after_the_click_keeps_its_credit(database: Engine, frozen: FrozenClock) -> None:
    mailing, began = make_mailing(), clock.now()
    mailing.click()
    collector.collect_once()
    frozen.at += timedelta(minutes=20)
    final_labels.settle_due()
    label_clicks(TrafficLabel.SCANNER, mailing.sends[0])
    frozen.at += timedelta(days=91)
    add_submission(mailing.contacts[0], mailing.activity_id)
    frozen.at += timedelta(minutes=1)
    record_leads()
    assert relabel.relabel(SYSTEM, began, began + timedelta(days=1)).total() == 1
    assert touchpoint_activities() == []
    assert credit_by_model() == {"first_touch": mailing.activity_id, "last_touch": mailing.activity_id}
