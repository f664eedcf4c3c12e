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
from tests.tracking.conversions.test_attribution import credited, record, submit
from tests.tracking.fixtures import add_send, events, make_mailing, send_row
from tracking.bots import final_labels
from tracking.collector import collector
from tracking.jobs import counter_check, relabel
from tracking.jobs.relabel import RelabelCount
from tracking.models.conversions import ConversionTouchpoint
from tracking.models.events import Event, HitKind, TrafficLabel


def test_labels_and_all_that_counts_them_move(
    database: Engine, frozen: FrozenClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(relabel, "PORTION", 2)
    mailing, began = make_mailing(5), clock.now()
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
    assert relabel.relabel(SYSTEM, began, until, dry_run=True) == expected
    assert {event.label for event in events()} == {TrafficLabel.SCANNER}
    assert relabel.relabel(SYSTEM, began, began + timedelta(minutes=5)).total() == 2
    assert relabel.relabel(SYSTEM, began, until).total() == 3
    assert relabel.relabel(SYSTEM, began, until).total() == 0
    assert {event.label for event in events()} == {TrafficLabel.HUMAN}
    assert all(send_row(send).clicked_at for send in mailing.sends)
    check_counts()


def called(label: TrafficLabel, *sends: int) -> None:
    """Label the clicks of these sends as older rules did, and rebuild the counters."""
    with db.transaction() as session:
        session.execute(update(Event).where(Event.send_id.in_(sends)).values(label=label, rules=0))
        counter_check.rebuild(session)


def touches() -> list[int]:
    with db.reading() as session:
        return list(session.scalars(select(ConversionTouchpoint.activity_id).order_by(ConversionTouchpoint.position)))


def test_a_click_gains_and_loses_its_credit(
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
    called(TrafficLabel.SCANNER, first.sends[0])
    called(TrafficLabel.HUMAN, last.sends[0])
    submit(first.contacts[0], last.activity_id)
    frozen.at += timedelta(minutes=1)
    assert record() == 1
    assert touches() == [last.activity_id]
    assert credited() == {"first_touch": last.activity_id, "last_touch": last.activity_id}
    relabel.relabel(SYSTEM, began, frozen.at, dry_run=True)
    assert touches() == [last.activity_id]
    credited_anew: list[int] = []
    monkeypatch.setattr("tracking.jobs.lead_conversions.credit_anew", _noting(credited_anew))
    assert relabel.relabel(SYSTEM, began, frozen.at).total() == 2
    assert touches() == [first.activity_id]
    assert credited() == {"first_touch": first.activity_id, "last_touch": first.activity_id}
    assert len(credited_anew) == 2, "once for each activity's portion, and for no conversion besides"
    check_counts()


def _noting(seen: list[int]) -> object:
    from tracking.jobs.lead_conversions import credit_anew

    def noted(session: object, conversion: object) -> None:
        seen.append(conversion.id)  # type: ignore[attr-defined]
        credit_anew(session, conversion)  # type: ignore[arg-type]

    return noted


def test_a_conversion_long_after_the_click_keeps_its_credit(database: Engine, frozen: FrozenClock) -> None:
    mailing, began = make_mailing(), clock.now()
    mailing.click()
    collector.collect_once()
    frozen.at += timedelta(minutes=20)
    final_labels.settle_due()
    called(TrafficLabel.SCANNER, mailing.sends[0])
    frozen.at += timedelta(days=91)
    submit(mailing.contacts[0], mailing.activity_id)
    frozen.at += timedelta(minutes=1)
    record()
    assert relabel.relabel(SYSTEM, began, began + timedelta(days=1)).total() == 1
    assert touches() == []
    assert credited() == {"first_touch": mailing.activity_id, "last_touch": mailing.activity_id}
