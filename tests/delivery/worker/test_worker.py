"""Tests of the sending worker: from an expanded audience to sends with results."""

import dataclasses
import threading
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import Engine, event, select, update
from sqlalchemy.exc import OperationalError

from campaigns import clock, config, db
from campaigns.accounts.actor import PUBLIC, SYSTEM
from campaigns.audience import consent, suppression
from campaigns.audience.models import ConsentPurpose, Contact, Suppression, SuppressionReason
from campaigns.delivery.mime.compose import compose
from campaigns.delivery.models import RelayHealth, Send, SendState
from campaigns.delivery.queue import batch, journal, leases, scheduler, skips
from campaigns.delivery.queue.expansion import expand
from campaigns.delivery.relays import availability
from campaigns.delivery.throttling.rate_limits import DomainBackoff
from campaigns.delivery.worker import mail_feed
from campaigns.delivery.worker import worker as worker_module
from campaigns.delivery.worker.worker import deliver
from campaigns.mail_catcher.smtp_server import Faults
from campaigns.mail_catcher.store import running_catcher
from campaigns.planning.models import Activity, ActivityStatus
from tests.delivery.launched_activity import count_mails, count_states, load_sends, make_mailing


def launch_mailing(size: int) -> int:
    with db.transaction() as session:
        activity_id = make_mailing(session, size).id
    expand(activity_id)
    return activity_id


def test_each_recipient_is_mailed_once(database: Engine, catcher: int) -> None:
    activity_id = launch_mailing(25)
    assert deliver(activity_id) == 25
    assert count_states(activity_id) == {"sent": 25}
    assert set(count_mails().values()) == {1}
    assert deliver(activity_id) == 0
    first = load_sends(activity_id)[0]
    assert first.sent_at is not None
    assert first.reply.startswith("250")
    assert first.trackable
    assert (first.lease_until, first.attempts) == (None, 1)
    assert list(journal.directory().glob("*.batch")) == []


def test_concurrent_workers_mail_each_recipient_once(
    database: Engine, catcher: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(worker_module, "_FIRST_BATCH", 7)
    activity_id = launch_mailing(120)
    workers = [threading.Thread(target=deliver, args=(activity_id, 20.0)) for _ in range(4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    while deliver(activity_id):
        pass
    assert count_states(activity_id) == {"sent": 120}
    assert len(count_mails()) == 120
    assert set(count_mails().values()) == {1}


def test_replies_become_states(database: Engine, catcher: int, faults: Faults) -> None:
    activity_id = launch_mailing(6)
    addresses = [send.address for send in load_sends(activity_id)]
    replies = [
        "550 5.1.1 no such user",
        "data 451 4.2.0 later",
        "data 554 5.7.1 policy",
        "550 5.2.2 full",
        "drop before",
    ]
    for address, answer in zip(addresses, [*replies, "drop after"], strict=True):
        faults[address] = [answer]
    deliver(activity_id)
    by_address = {send.address: send for send in load_sends(activity_id)}
    found = [by_address[address].state.value for address in addresses]
    assert found == ["bounced", "deferred", "held", "bounced", "deferred", "unknown"]
    with db.read_only_session() as session:
        assert list(session.scalars(select(Suppression.address))) == [addresses[0]]
    dead, later = by_address[addresses[0]], by_address[addresses[1]]
    assert dead.bounced_at is not None
    assert dead.reply == "550 5.1.1 no such user"
    assert later.due_at is not None
    assert timedelta(minutes=4) < later.due_at - clock.now() < timedelta(minutes=6)


def test_deferred_sends_are_retried_and_expire(
    database: Engine, catcher: int, faults: Faults, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(DomainBackoff, "THRESHOLD", 100)  # No backoff of the domain in this test.
    activity_id = launch_mailing(2)
    lucky, unlucky = (send.address for send in load_sends(activity_id))
    faults[lucky] = ["451 4.7.1 greylisted"]
    faults[unlucky] = ["451 4.2.0 later"] * 30
    for _ in range(21):
        deliver(activity_id)
        with db.transaction() as session:
            session.execute(update(Send).where(Send.state == SendState.DEFERRED).values(due_at=clock.now()))
    assert {send.address: (send.state.value, send.attempts) for send in load_sends(activity_id)} == {
        lucky: ("sent", 2),
        unlucky: ("failed", 20),
    }


def test_smtp_down_then_up(database: Engine, settings: config.Settings) -> None:
    activity_id = launch_mailing(5)
    assert deliver(activity_id) == 0
    assert count_states(activity_id) == {"queued": 5}
    assert {send.attempts for send in load_sends(activity_id)} == {0}
    with db.read_only_session() as session:
        down = availability.failing_relay(session)
        assert down is not None
        assert "refused" in down.error.lower()
        assert not availability.any_usable(session)
    assert scheduler.find_due_work().deliver == []
    with running_catcher() as port:
        config.set_settings(dataclasses.replace(settings, smtp_url=f"smtp://127.0.0.1:{port}"))
        with db.transaction() as session:
            session.execute(update(RelayHealth).values(name=f"127.0.0.1:{port}", retry_at=clock.now()))
        assert scheduler.find_due_work().deliver == [activity_id]
        assert deliver(activity_id) == 5
        with db.read_only_session() as session:
            assert availability.failing_relay(session) is None
    assert set(count_mails().values()) == {1}


def test_lost_relay_leaves_the_rest_queued(database: Engine, catcher: int, faults: Faults) -> None:
    activity_id = launch_mailing(20)
    for send in load_sends(activity_id):
        faults[send.address] = ["drop before"]
    assert deliver(activity_id) == 5
    assert count_states(activity_id) == {"deferred": 5, "queued": 15}
    assert deliver(activity_id) == 0


def test_a_paused_activity_sends_nothing(database: Engine, catcher: int) -> None:
    activity_id = launch_mailing(3)
    with db.transaction() as session:
        session.execute(update(Activity).values(status=ActivityStatus.PAUSED))
    assert deliver(activity_id) == 0
    assert count_states(activity_id) == {"queued": 3}


def change_after(monkeypatch: pytest.MonkeyPatch, count: int, change: object) -> None:
    """Call ``change`` when the ``count``-th mail is composed. Pause and suppression are checked before each mail."""
    monkeypatch.setattr(mail_feed, "_CHECK_INTERVAL", 0.0)
    # One connection, so that the order of the mails is fixed.
    config.set_settings(dataclasses.replace(config.settings(), smtp_url=f"{config.settings().smtp_url}?connections=1"))
    composed = 0

    def counting(*arguments: object) -> object:
        nonlocal composed
        composed += 1
        if composed == count:
            with db.transaction() as session:
                change(session)  # type: ignore[operator]
        return compose(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(mail_feed, "compose", counting)


def test_pause_during_a_batch(database: Engine, catcher: int, monkeypatch: pytest.MonkeyPatch) -> None:
    activity_id = launch_mailing(10)
    change_after(monkeypatch, 4, lambda s: s.execute(update(Activity).values(status=ActivityStatus.PAUSED)))
    assert deliver(activity_id) == 2  # The envelope of the third was sent, its content was not.
    assert count_states(activity_id) == {"sent": 2, "queued": 8}


def test_suppression_during_a_batch(database: Engine, catcher: int, monkeypatch: pytest.MonkeyPatch) -> None:
    activity_id = launch_mailing(10)
    last, withdrawn = load_sends(activity_id)[-1], load_sends(activity_id)[-2]

    def refuse(session: object) -> None:
        suppression.suppress(session, SYSTEM, last.address, SuppressionReason.MANUAL)  # type: ignore[arg-type]
        assert withdrawn.contact_id is not None
        consent.withdraw(session, PUBLIC, withdrawn.contact_id, ConsentPurpose.EMAIL, source="test")  # type: ignore[arg-type]

    change_after(monkeypatch, 4, refuse)
    assert deliver(activity_id) == 8
    assert count_states(activity_id) == {"sent": 8, "skipped": 2}
    assert [send.reason for send in load_sends(activity_id)[-2:]] == ["no_consent", "suppressed"]
    assert last.address not in count_mails()


def test_suppression_before_the_claim_skips(database: Engine, catcher: int) -> None:
    activity_id = launch_mailing(2)
    with db.transaction() as session:
        session.execute(
            update(Contact).where(Contact.id == load_sends(activity_id)[0].contact_id).values(email="gone@x.example")
        )
        suppression.suppress(session, SYSTEM, "gone@x.example", SuppressionReason.MANUAL)
    deliver(activity_id)
    assert count_states(activity_id) == {"sent": 1, "skipped": 1}


def test_without_tracking_consent_not_trackable(database: Engine, catcher: int) -> None:
    activity_id = launch_mailing(1)
    with db.transaction() as session:
        contact_id = load_sends(activity_id)[0].contact_id
        assert contact_id is not None
        consent.withdraw(session, PUBLIC, contact_id, ConsentPurpose.TRACKING, source="test")
    deliver(activity_id)
    assert not load_sends(activity_id)[0].trackable


def test_invalid_address_fails_only_its_send(database: Engine, catcher: int) -> None:
    activity_id = launch_mailing(3)
    with db.transaction() as session:
        session.execute(update(Send).where(Send.id == load_sends(activity_id)[1].id).values(address="no address"))
    deliver(activity_id)
    assert [send.state.value for send in load_sends(activity_id)] == ["sent", "failed", "sent"]


def test_worker_stops_when_its_lease_is_lost(database: Engine, catcher: int, monkeypatch: pytest.MonkeyPatch) -> None:
    activity_id = launch_mailing(10)
    monkeypatch.setattr(leases, "_RENEW_BELOW", leases._LEASE_MICROS * 2)  # Each mail renews the lease.
    change_after(monkeypatch, 4, lambda s: s.execute(update(Send).values(state=SendState.UNKNOWN, lease_until=None)))
    deliver(activity_id)
    assert len(count_mails()) == 2
    assert count_states(activity_id) == {"sent": 2, "unknown": 8}


def test_batch_is_taken_over_after_a_database_outage(
    database: Engine, catcher: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The take-over works although the worker's process is alive, because it has unlocked its journal."""
    activity_id = launch_mailing(3)

    def away(*_: object) -> None:
        raise OperationalError("", {}, Exception("the database is away"))

    monkeypatch.setattr(batch, "record_results", away)
    monkeypatch.setattr(availability, "record_success", away)
    with pytest.raises(OperationalError) as raised:
        deliver(activity_id)
    assert count_states(activity_id) == {"sending": 3}
    assert leases.take_over() == 3
    assert count_states(activity_id) == {"sent": 3}
    assert raised  # Keeps the traceback, and with it the objects of the failed run, alive until here.


def test_suspended_run_still_sends_its_first_batch(database: Engine, catcher: int) -> None:
    activity_id = launch_mailing(5)
    assert deliver(activity_id, 0.0) == 5


def test_refusal_query_reads_only_the_batch(sqlite_engine: Engine) -> None:
    """Before its first ANALYZE, SQLite estimates ten sends per activity and would read all of them for each batch."""
    db.set_engine(sqlite_engine)
    statements: list[tuple[str, Any]] = []

    def note(_connection: object, _cursor: object, statement: str, parameters: Any, *_: object) -> None:
        statements.append((statement, parameters))

    with db.read_only_session() as session:
        event.listen(sqlite_engine, "before_cursor_execute", note)
        skips.find_refused(session, [1, 2])
        event.remove(sqlite_engine, "before_cursor_execute", note)
        statement, parameters = statements[-1]
        plan = session.connection().exec_driver_sql(f"EXPLAIN QUERY PLAN {statement}", parameters).all()
    assert [row[3] for row in plan if "sends" in row[3]] == ["SEARCH sends USING INTEGER PRIMARY KEY (rowid=?)"]
