"""Tests of domain limits: shared by all workers, without delaying other domains."""

import threading
import time

import pytest
from flask.testing import FlaskClient
from redis import Redis
from sqlalchemy import Engine, select, update

from campaigns import config, db
from campaigns.accounts.actor import SYSTEM
from campaigns.delivery.models import DomainLimit, Send
from campaigns.delivery.throttling import domain_limits
from campaigns.delivery.throttling.domain_limits import DomainLimitInput
from campaigns.delivery.throttling.rate_limits import ConcurrencyLimit, DomainBackoff
from campaigns.delivery.worker.worker import deliver
from campaigns.errors import ValidationFailed
from tests.delivery.fake_relay import run_fake_relay
from tests.delivery.launched_activity import count_states, load_sends
from tests.delivery.worker.test_worker import launch_mailing


def launch_to_domains(size: int, *domains: str) -> int:
    """An expanded email activity whose recipients' domains are ``domains`` in turn. Returns its id."""
    activity_id = launch_mailing(size)
    with db.transaction() as session:
        for number, send in enumerate(load_sends(activity_id)):
            address = f"p{number}@{domains[number % len(domains)]}"
            session.execute(update(Send).where(Send.id == send.id).values(address=address))
    return activity_id


def create_limit(**values: object) -> None:
    with db.transaction() as session:
        domain_limits.create_limit(
            session,
            SYSTEM,
            DomainLimitInput("Slow", ["slow.example", "also.example"], **values),  # type: ignore[arg-type]
        )


def count_by_domain(activity_id: int, state: str) -> dict[str, int]:
    found: dict[str, int] = {}
    for send in load_sends(activity_id):
        if send.state.value == state:
            domain = send.address.rpartition("@")[2]
            found[domain] = found.get(domain, 0) + 1
    return found


def test_slow_provider_does_not_delay_others(database: Engine, settings: config.Settings) -> None:
    activity_id = launch_to_domains(60, "slow.example", "fast.example")
    create_limit(per_second=1.0)
    with run_fake_relay(settings):
        began = time.monotonic()
        while count_by_domain(activity_id, "sent").get("fast.example", 0) < 30:  # Repeated when the machine stalls.
            deliver(activity_id, 1.0)
        took = time.monotonic() - began
    slow = count_by_domain(activity_id, "sent").get("slow.example", 0)
    assert 1 <= slow <= took + 2
    assert count_states(activity_id) == {"sent": 30 + slow, "queued": 30 - slow}
    waiting = sorted(send.due_at for send in load_sends(activity_id) if send.due_at)
    assert (waiting[-1] - waiting[0]).total_seconds() > 1  # One after the other, not all due at the same time.


def test_concurrency_limit_is_kept_and_released(database: Engine, settings: config.Settings) -> None:
    activity_id = launch_to_domains(12, "slow.example", "also.example")
    create_limit(at_once=1)
    with run_fake_relay(settings):
        deliver(activity_id, 60.0)
    assert count_states(activity_id) == {"sent": 12}
    assert ConcurrencyLimit._local_counts["domains:1"] == 0


def test_inactive_limit_has_no_effect(database: Engine, settings: config.Settings) -> None:
    activity_id = launch_to_domains(20, "slow.example")
    create_limit(per_second=0.1, active=False)
    with run_fake_relay(settings):
        deliver(activity_id, 60.0)
    assert count_states(activity_id) == {"sent": 20}


def test_two_workers_share_a_limit(database: Engine, broker: Redis) -> None:
    activity_id = launch_to_domains(80, "slow.example")
    create_limit(per_second=8.0, at_once=2)
    with run_fake_relay(config.settings()):
        began = time.monotonic()
        while count_states(activity_id).get("sent", 0) < 4:  # Repeated when the machine stalls.
            workers = [threading.Thread(target=deliver, args=(activity_id, 2.0)) for _ in range(2)]
            for worker in workers:
                worker.start()
            for worker in workers:
                worker.join()
        took = time.monotonic() - began
    sent = count_states(activity_id)["sent"]
    assert sent <= 8 * took + 4
    assert sum(count_states(activity_id).values()) == 80
    assert broker.exists("kampania:rate:domains:1")
    assert broker.zcard("kampania:places:domains:1") == 0


def test_slots_and_backoff_are_shared(broker: Redis, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(DomainBackoff, "_PAUSES", (900,))  # Longer than a slow machine can stall the test.
    one, two = ConcurrencyLimit("x", 2), ConcurrencyLimit("x", 2)
    assert [one.acquire(), two.acquire(), one.acquire()] == [True, True, False]
    two.release()
    assert one.acquire()
    own, other = DomainBackoff(), DomainBackoff()
    assert other.remaining_pause("x.example") is None
    for _ in range(DomainBackoff.THRESHOLD):
        own.record_deferral("x.example")
    other._synced_at = 0.0  # Due for the next synchronisation.
    remaining = other.remaining_pause("x.example")
    assert remaining is not None
    assert 0 < remaining.total_seconds() <= 900
    assert other.remaining_pause("y.example") is None


def test_validation(database: Engine) -> None:
    create_limit(per_second=1.0)
    for values, field in (
        (DomainLimitInput("", ["a.example"]), "name"),
        (DomainLimitInput("A", []), "domains"),
        (DomainLimitInput("A", ["no domain"]), "domains"),
        (DomainLimitInput("A", ["slow.example"]), "domains"),
        (DomainLimitInput("A", ["a.example"], per_second=-1), "per_second"),
        (DomainLimitInput("A", ["a.example"], at_once=1001), "at_once"),
    ):
        with db.transaction() as session, pytest.raises(ValidationFailed) as raised:
            domain_limits.create_limit(session, SYSTEM, values)
        assert [problem.field for problem in raised.value.problems] == [field]


def test_pages(owner_client: FlaskClient) -> None:
    assert "gmail.com" in owner_client.get("/relays/domains").text
    assert "googlemail.com" in owner_client.get("/relays/domains/new?provider=Gmail").text
    form = {
        "name": "Gmail",
        "domains": "gmail.com\r\nbücher.example",
        "per_second": "20",
        "at_once": "5",
        "active": "y",
    }
    assert owner_client.post("/relays/domains/new", data=form).status_code == 303
    assert owner_client.post("/relays/domains/new", data=form).status_code == 400
    assert owner_client.post("/relays/domains/1", data=form | {"per_second": "2.5", "active": ""}).status_code == 303
    with db.read_only_session() as session:
        limit = session.scalars(select(DomainLimit)).one()
        assert (limit.domains, limit.per_second) == (["gmail.com", "xn--bcher-kva.example"], 2.5)
    assert "Gmail" in owner_client.get("/relays/domains/1").text
    assert owner_client.post("/relays/domains/1/removal").status_code == 303
    assert owner_client.get("/relays/domains/1").status_code == 404
