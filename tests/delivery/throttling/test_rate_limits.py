"""Tests of token buckets, domain backoff, the circuit breaker of bounces, and the priority of test mail."""

import dataclasses
import time

import pytest
from redis import Redis
from sqlalchemy import Engine

from campaigns import config, db
from campaigns.accounts.actor import SYSTEM
from campaigns.delivery.bounces.effects import circuit_breaker
from campaigns.delivery.queue import scheduler
from campaigns.delivery.throttling.rate_limits import DomainBackoff, TokenBucket
from campaigns.delivery.worker.worker import deliver
from campaigns.planning import launch
from campaigns.planning.models import Activity, ActivityStatus
from tests.delivery.fake_relay import run_fake_relay
from tests.delivery.launched_activity import count_states, load_sends
from tests.delivery.worker.test_worker import launch_mailing


def take_tokens(bucket: TokenBucket, mails: int) -> None:
    """Wait until the bucket has given that number of tokens."""
    while mails:
        pause = bucket.acquire()
        mails -= not pause
        time.sleep(min(pause, 0.02))


def test_without_rate_no_wait() -> None:
    assert all(TokenBucket("x", 0.0).acquire() == 0.0 for _ in range(1000))


def test_a_rate_is_kept_by_one_process(settings: config.Settings) -> None:
    began = time.monotonic()
    for _ in range(2):
        take_tokens(TokenBucket("x", 200.0), 80)
    # Minus the initial fill of the bucket and the tokens granted ahead.
    assert time.monotonic() - began >= (160 - 2 * 50 - 2) / 200


def test_workers_share_a_rate_through_the_broker(broker: Redis) -> None:
    began = time.monotonic()
    for _ in range(2):
        take_tokens(TokenBucket("y", 80.0), 35)
    assert time.monotonic() - began >= (70 - 2 * 20 - 2) / 80
    assert broker.exists("kampania:rate:y")


def test_a_slow_rate_holds_a_delivery(database: Engine, settings: config.Settings) -> None:
    activity_id = launch_mailing(30)
    with run_fake_relay(settings) as relay:
        allowed = dataclasses.replace(settings, private_relays=True)
        config.set_settings(allowed)
        from tests.delivery.relays.test_relays import create_relays

        create_relays(relay, per_second=20.0)
        began = time.monotonic()
        assert deliver(activity_id, 60.0) == 30
        assert time.monotonic() - began > 1.0


def test_domain_is_paused_after_deferrals(monkeypatch: pytest.MonkeyPatch) -> None:
    fake_time = [1000.0]
    monkeypatch.setattr("campaigns.delivery.throttling.rate_limits.time.monotonic", lambda: fake_time[0])
    backoff = DomainBackoff()
    for _ in range(DomainBackoff.THRESHOLD - 1):
        backoff.record_deferral("x.example")
    backoff.record_success("x.example")
    for _ in range(DomainBackoff.THRESHOLD - 1):
        backoff.record_deferral("x.example")
    assert backoff.remaining_pause("x.example") is None
    backoff.record_deferral("x.example")
    first = backoff.remaining_pause("x.example")
    assert first is not None
    fake_time[0] += first.total_seconds()
    assert backoff.remaining_pause("x.example") is None
    backoff.record_deferral("x.example")  # One mail after the pause was deferred.
    second = backoff.remaining_pause("x.example")
    assert second is not None
    assert second > first
    assert backoff.remaining_pause("y.example") is None


def test_paused_domain_uses_no_attempt(
    database: Engine, settings: config.Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(DomainBackoff, "_PAUSES", (900,))  # Longer than a slow machine can stall the test.
    activity_id = launch_mailing(30)
    with run_fake_relay(settings, rcpt=b"451 4.7.0 slow down"):
        deliver(activity_id)
    found = load_sends(activity_id)
    assert count_states(activity_id) == {"deferred": DomainBackoff.THRESHOLD, "queued": 30 - DomainBackoff.THRESHOLD}
    assert sum(send.attempts for send in found) == DomainBackoff.THRESHOLD
    assert scheduler.find_due_work().deliver == []  # All of them are due later.


def test_too_many_bounces_pause_the_launch(database: Engine, settings: config.Settings) -> None:
    # More than two of the largest batches: the second one is judged while a third one is claimed ahead.
    activity_id = launch_mailing(2_600)
    with run_fake_relay(settings, rcpt=lambda number: b"550 5.2.2 full" if number % 10 == 0 else b"250 ok"):
        deliver(activity_id, 60.0)
        counts = count_states(activity_id)
        assert counts["queued"] > 0
        with db.transaction() as session:
            activity = session.get_one(Activity, activity_id)
            assert activity.status is ActivityStatus.PAUSED
            rates = circuit_breaker.trip_rates(session, activity_id)
            assert rates is not None
            assert (rates.exceeded_limit, rates.answered >= 200) == ("bounces", True)
            launch.resume(session, SYSTEM, activity)
        deliver(activity_id, 60.0)  # After a manual resume the breaker does not trip again.
    counts = count_states(activity_id)
    assert sum(counts.values()) == 2_600
    assert set(counts) == {"sent", "bounced"}
    # The relay numbers mails twice whose envelope was sent before the pause.
    assert 260 <= counts["bounced"] <= 262


def test_test_mail_is_urgent(database: Engine, catcher: int) -> None:
    from campaigns.delivery.transactional import enqueue

    activity_id = launch_mailing(3)
    with db.transaction() as session:
        urgent = enqueue.enqueue_send(session, "test", "me@example.net", "once").activity_id
    work = scheduler.find_due_work()
    assert set(work.deliver) == {activity_id, urgent}
    assert work.urgent == {urgent}
