"""Tests of send windows, the end of the sending time, and the frequency cap."""

import threading
from collections import Counter
from datetime import UTC, datetime, time, timedelta
from typing import Any

import pytest
from flask.testing import FlaskClient
from sqlalchemy import Engine, update

from campaigns import clock, db
from campaigns.accounts.models import Organisation
from campaigns.audience.models import Contact
from campaigns.delivery.models import Send, SendState
from campaigns.delivery.preflight import exclusions
from campaigns.delivery.queue import batch, claims, scheduler
from campaigns.delivery.queue.expansion import expand
from campaigns.delivery.sends import progress, send_windows
from campaigns.delivery.worker.worker import deliver
from campaigns.planning.models import Activity, ActivityStatus
from tests.conftest import FrozenClock
from tests.delivery.launched_activity import count_states, load_sends, make_mailing
from tests.factories import make_activity

ZONES = ["Europe/Berlin", "America/New_York", None, "No/Where", "Asia/Tehran", "Asia/Tehran"]


def set_organisation(**values: Any) -> None:
    with db.transaction() as session:
        session.execute(update(Organisation).values(**values))


def make_mailing_to_zones(*zones: str | None, **values: Any) -> int:
    """An email activity, not expanded, to one contact per zone. The organisation's zone is UTC. Returns its id."""
    with db.transaction() as session:
        activity = make_mailing(session, len(zones), **values)
        for contact, zone in zip(session.query(Contact).order_by(Contact.id), zones, strict=True):
            contact.timezone = zone
        return activity.id


def progress_of(activity_id: int) -> progress.SendProgress:
    with db.read_only_session() as session:
        return progress.measure_progress(session, session.get_one(Activity, activity_id))


def test_sends_are_due_when_their_window_opens(database: Engine, frozen: FrozenClock) -> None:
    activity_id = make_mailing_to_zones(*ZONES, window_days="7", window_from=time(9), window_until=time(15))
    expand(activity_id)  # Sunday 12:00 UTC: 13:00 in Berlin, 7:00 in New York, 15:30 in Tehran
    assert [send.due_at for send in load_sends(activity_id)] == [
        frozen.at,
        datetime(2026, 11, 22, 14, 0, tzinfo=UTC),
        frozen.at,
        frozen.at,
        datetime(2026, 11, 29, 5, 30, tzinfo=UTC),
        datetime(2026, 11, 29, 5, 30, tzinfo=UTC),
    ]
    assert [send.reason for send in load_sends(activity_id)] == ["", "window", "", "", "window", "window"]
    now = progress_of(activity_id)
    assert (now.waiting_for_window, now.total, now.counts) == (3, 6, {SendState.QUEUED: 6})
    with db.transaction() as session:
        assert len(claims.claim(session, activity_id, "one", 10)) == 3
    frozen.at = datetime(2026, 11, 22, 14, 0, tzinfo=UTC)
    assert progress_of(activity_id).waiting_for_window == 2
    with db.transaction() as session:
        assert len(claims.claim(session, activity_id, "two", 10)) == 1
    assert {send.reason for send in load_sends(activity_id, SendState.SENDING)} == {""}


def test_changed_quiet_hours_apply_to_waiting_sends(
    database: Engine, owner_client: FlaskClient, frozen: FrozenClock
) -> None:
    set_organisation(quiet_from=time(8), quiet_until=time(20))
    activity_id = make_mailing_to_zones("Europe/Berlin", "Asia/Tokyo")
    expand(activity_id)  # Sunday 12:00 UTC: 13:00 in Berlin, 21:00 in Tokyo
    assert [send.reason for send in load_sends(activity_id)] == ["window", ""]
    form = {
        "name": "House",
        "currency": "EUR",
        "language": "en",
        "timezone": "UTC",
        "sender_name": "House",
        "sender_email": "news@example.org",
        "postal_address": "Here 1",
        "cap_mails": "0",
        "cap_days": "7",
        "quiet_from": "",
        "quiet_until": "",
    }
    saved = owner_client.post("/settings", data=form | {"quiet_from": "10:00", "quiet_until": "15:00"})
    assert saved.status_code == 303, saved.text
    assert [(send.due_at, send.reason) for send in load_sends(activity_id)] == [(frozen.at, "")] * 2
    assert progress_of(activity_id).waiting_for_window == 0
    with db.transaction() as session:
        assert len(claims.claim(session, activity_id, "one", 10)) == 1
    assert load_sends(activity_id)[0].due_at == datetime(2026, 11, 22, 14, 0, tzinfo=UTC)  # 15:00 in Berlin.
    assert owner_client.post("/settings", data=form).status_code == 303
    with db.transaction() as session:
        assert len(claims.claim(session, activity_id, "one", 10)) == 1


def test_claim_postpones_sends_outside_their_window(database: Engine, frozen: FrozenClock) -> None:
    activity_id = make_mailing_to_zones(*["Europe/Berlin"] * 3, "America/New_York")
    expand(activity_id)
    set_organisation(quiet_from=time(13), quiet_until=time(14))
    with db.transaction() as session:
        claimed = claims.claim(session, activity_id, "one", 3)  # In any order: same due time.
    assert [send.id for send in load_sends(activity_id) if send.contact_id][3:] == [row[0] for row in claimed]
    with db.read_only_session() as session:
        assert scheduler.with_due_sends(session) == []
    assert progress_of(activity_id).waiting_for_window == 3
    frozen.at += timedelta(hours=1)
    with db.read_only_session() as session:
        assert scheduler.with_due_sends(session) == [activity_id]
    assert progress_of(activity_id).waiting_for_window == 0


def test_a_launch_ends_with_the_windows_of_the_last_zone(database: Engine, frozen: FrozenClock, catcher: int) -> None:
    activity_id = make_mailing_to_zones(*ZONES, window_from=time(9), window_until=time(15))
    expand(activity_id)
    for _ in range(30):
        deliver(activity_id)
        scheduler.find_due_work()
        assert sum(count_states(activity_id).values()) == len(ZONES)
        frozen.at += timedelta(hours=1)
    assert count_states(activity_id) == {"sent": 6}
    local = {send.sent_at.hour for send in load_sends(activity_id) if send.sent_at}
    assert local == {12, 14, 5} or local == {12, 14, 6}  # Tehran opens at 5:30


def test_waiting_sends_fail_after_stop_time(database: Engine, frozen: FrozenClock, catcher: int) -> None:
    activity_id = make_mailing_to_zones(
        *ZONES, window_from=time(9), window_until=time(15), stop_after=frozen.at + timedelta(hours=1)
    )
    expand(activity_id)
    deliver(activity_id)
    scheduler.find_due_work()
    assert count_states(activity_id) == {"sent": 3, "queued": 3}
    frozen.at += timedelta(hours=1)
    assert batch.claim(activity_id, 10) is None
    scheduler.find_due_work()
    assert count_states(activity_id) == {"sent": 3, "failed": 3}
    now = progress_of(activity_id)
    assert (now.expired, now.waiting_for_window, now.done) == (3, 0, 6)
    scheduler.find_due_work()
    with db.read_only_session() as session:
        assert session.get_one(Activity, activity_id).status is ActivityStatus.FINISHED


def launch_again(activity_id: int) -> int:
    """A second, expanded activity to the same recipients. Returns its id."""
    with db.transaction() as session:
        first = session.get_one(Activity, activity_id)
        values = {name: getattr(first, name) for name in ("due_at", "launched_at", "status")}
        values |= {name: getattr(first.email, name) for name in ("list_id", "message_id", "version_id")}
        other = make_activity(session, **values, everybody=False).id
    expand(other)
    return other


def test_capped_contacts_are_skipped(database: Engine, frozen: FrozenClock, catcher: int) -> None:
    one = make_mailing_to_zones(None, None)
    expand(one)
    set_organisation(cap_mails=2, cap_days=7)
    two, three = launch_again(one), launch_again(one)
    deliver(one)
    frozen.at += timedelta(days=1)
    deliver(two)
    with db.transaction() as session:
        activity = session.get_one(Activity, three)
        assert exclusions.count(session, activity).audience == {"total": 2, "mailable": 0, "capped": 2}
    deliver(three)
    assert [count_states(each) for each in (one, two, three)] == [{"sent": 2}, {"sent": 2}, {"skipped": 2}]
    assert {send.reason for send in load_sends(three)} == {"capped"}
    frozen.at += timedelta(days=6, seconds=1)
    four = launch_again(one)
    deliver(four)
    assert count_states(four) == {"sent": 2}


def test_unknown_send_counts_until_its_activity_has_ended(database: Engine, frozen: FrozenClock) -> None:
    one = make_mailing_to_zones(None)
    expand(one)
    set_organisation(cap_mails=1, cap_days=2)
    two = launch_again(one)
    with db.transaction() as session:
        session.execute(update(Send).where(Send.activity_id == one).values(state=SendState.UNKNOWN, due_at=None))
        assert claims.claim(session, two, "b", 5) == []
        session.rollback()
    with db.transaction() as session:
        session.execute(update(Send).where(Send.activity_id == one).values(state=SendState.UNKNOWN, due_at=None))
        session.execute(update(Activity).where(Activity.id == one).values(finished_at=frozen.at - timedelta(days=2)))
        assert len(claims.claim(session, two, "b", 5)) == 1


@pytest.mark.parametrize("cap", [1, 2])
def test_concurrent_launches_keep_the_cap(database: Engine, catcher: int, cap: int) -> None:
    one = make_mailing_to_zones(*[None] * 60)
    expand(one)
    set_organisation(cap_mails=cap, cap_days=7)
    launches = [one, launch_again(one), launch_again(one)]
    workers = [threading.Thread(target=deliver, args=(each, 20.0)) for each in launches for _ in range(2)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    found = [send for each in launches for send in load_sends(each)]
    assert Counter(send.state.value for send in found) == {"sent": 60 * cap, "skipped": 60 * (3 - cap)}
    assert set(Counter(send.contact_id for send in found if send.sent_at).values()) == {cap}


def test_built_in_mail_is_never_capped(database: Engine, catcher: int) -> None:
    from campaigns.delivery.transactional import enqueue

    one = make_mailing_to_zones(None)
    expand(one)
    set_organisation(cap_mails=1, cap_days=7, quiet_from=time(0), quiet_until=time(23, 59))
    contact_id = load_sends(one)[0].contact_id
    with db.transaction() as session:
        session.execute(update(Send).values(state=SendState.SENT, sent_at=clock.now()))
        version = load_sends(one)[0].version_id
        own = enqueue.enqueue_send(
            session, "test", "me@example.net", "x", contact_id=contact_id, version_id=version
        ).activity_id
    deliver(own)
    assert count_states(own) == {"sent": 1}


def test_waiting_sends_are_requeued_in_chunks(database: Engine, frozen: FrozenClock) -> None:
    activity_id = make_mailing_to_zones(*["Europe/Berlin"] * 3)
    set_organisation(quiet_from=time(8), quiet_until=time(20))
    expand(activity_id)
    more = []
    for _ in range(2):
        with db.transaction() as session:
            more.append(send_windows.requeue_waiting(session, 2))
    assert more == [True, False]
    assert {(send.due_at, send.reason) for send in load_sends(activity_id)} == {(frozen.at, "")}
