"""Chaos tests: a relay with every fault, duplicate tasks, repeated pause and resume, clock jumps, a relay outage.

Each recipient ends in one state, none is mailed twice and none is lost. ``TORTURE=50`` runs 50 seeds.
"""

import dataclasses
import os
import random
import re
import threading
from collections import Counter
from collections.abc import Callable, Sequence
from datetime import timedelta

import pytest
from sqlalchemy import Engine, update

from campaigns import clock, config, db
from campaigns.accounts.actor import SYSTEM
from campaigns.delivery.models import RelayHealth, Send, SendState
from campaigns.delivery.queue import journal, leases, scheduler
from campaigns.delivery.queue.expansion import expand
from campaigns.delivery.smtp import connection
from campaigns.delivery.throttling.rate_limits import DomainBackoff, domain_backoff
from campaigns.delivery.worker import worker as worker_module
from campaigns.delivery.worker.worker import deliver
from campaigns.planning import launch
from campaigns.planning.models import Activity, CampaignStatus
from tests.conftest import FrozenClock
from tests.delivery.fake_relay import DROP, EHLO, HANG, Strange, run_fake_relay
from tests.delivery.launched_activity import count_mails, count_states, load_sends, make_mailing
from tests.delivery.worker.test_worker import change_after, launch_mailing

SEEDS = int(os.environ.get("TORTURE", "1"))
SIZE = 30
_TO = re.compile(rb"^To:.*?<([^>]+)>", re.M)


class RandomReplies:
    """Random replies of a relay, reproducible by seed."""

    def __init__(self, seed: int) -> None:
        self._rng = random.Random(seed)
        self.unclear = 0
        """Number of mails whose final dot got no clear reply: they may have been accepted."""

    def mail(self, _number: int) -> bytes:
        return self._draw(b"250 ok", [b"421 4.3.2 closing", b"451 4.3.0 later", b"452 4.5.3 too many", DROP])

    def rcpt(self, _number: int) -> bytes:
        return self._draw(b"250 ok", [b"450 4.2.0 later", b"421 4.7.0 too fast", b"550 5.2.2 full", DROP])

    def data(self, _number: int) -> bytes:
        return self._draw(b"354 go", [b"451 4.3.0 later", b"421 4.3.2 closing", DROP])

    def dot(self, _number: int) -> bytes:
        answer = self._draw(b"250 ok", [b"451 4.3.0 later", b"554 5.2.3 too large", b"999 huh", DROP, HANG])
        self.unclear += answer in (b"999 huh", DROP, HANG)
        return answer

    def _draw(self, usual: bytes, faults: Sequence[bytes]) -> bytes:
        return self._rng.choice(faults) if self._rng.random() < 0.12 else usual


def received(relay: Strange) -> Counter[str]:
    """Recipient → number of contents that the relay received for it."""
    return Counter(match[1].decode() for content in relay.contents if (match := _TO.search(content)))


def make_everything_due() -> None:
    """Make deferred sends due, and end all backoffs of domains and relays."""
    domain_backoff._domains.clear()
    with db.transaction() as session:
        session.execute(update(Send).where(Send.state == SendState.DEFERRED).values(due_at=clock.now()))
        session.execute(update(RelayHealth).values(retry_at=clock.now()))


@pytest.mark.timeout(60 + SEEDS * 10)
@pytest.mark.parametrize("ehlo", [EHLO, b"250 plain"], ids=["grouped", "lock-step"])
def test_a_relay_with_every_fault(
    database: Engine, settings: config.Settings, ehlo: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(DomainBackoff, "THRESHOLD", 1000)
    monkeypatch.setattr(connection, "FINAL_DOT_TIMEOUT", 0.5)
    monkeypatch.setattr(connection, "_CHECK_INTERVAL", 0.05)
    for seed in range(SEEDS):
        activity_id, replies = launch_mailing(SIZE), RandomReplies(seed)
        answers = {name: getattr(replies, name) for name in ("mail", "rcpt", "data", "dot")}
        with run_fake_relay(settings, ehlo=ehlo, **answers) as relay:
            for _ in range(200):
                make_everything_due()
                deliver(activity_id, 0.5)
                leases.take_over()
                if not {"queued", "deferred", "sending"} & set(count_states(activity_id)):
                    break
        found, times = count_states(activity_id), received(relay)
        refused = {send.address for send in load_sends(activity_id) if send.state is SendState.BOUNCED}
        assert sum(found.values()) == SIZE, seed
        assert set(found) <= {"sent", "unknown", "bounced"}, (seed, found)
        assert found.get("unknown", 0) <= replies.unclear, (seed, found)
        sent_addresses = {send.address for send in load_sends(activity_id, SendState.SENT)}
        unknown_addresses = {send.address for send in load_sends(activity_id, SendState.UNKNOWN)}
        assert sent_addresses <= set(times), seed
        assert set(times) - refused <= sent_addresses | unknown_addresses, seed


def test_duplicate_tasks(database: Engine, catcher: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker_module, "_FIRST_BATCH", 5)
    with db.transaction() as session:
        activity = make_mailing(session, 60)
        activity_id, activity.campaign.status = activity.id, CampaignStatus.ACTIVE
    run_in_parallel(
        *[lambda: expand(activity_id)] * 3,
        *[lambda: deliver(activity_id, 1.0)] * 3,
        *[scheduler.find_due_work] * 2,
        *[leases.take_over] * 2,
    )
    while deliver(activity_id):
        pass
    scheduler.find_due_work()
    assert count_states(activity_id) == {"sent": 60}
    assert set(count_mails().values()) == {1}
    assert len(count_mails()) == 60
    assert list(journal.directory().glob("*.batch")) == []


def run_in_parallel(*functions: Callable[[], object]) -> None:
    """Run the functions in parallel threads; raises the first error."""
    errors: list[BaseException] = []

    def run(work: Callable[[], object]) -> None:
        try:
            work()
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=run, args=(work,)) for work in functions]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if errors:
        raise errors[0]


def test_repeated_pause_and_resume(database: Engine, catcher: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Repeated pause and resume while three workers run: afterwards every mail is sent exactly once."""
    monkeypatch.setattr(worker_module, "_FIRST_BATCH", 5)
    with db.transaction() as session:
        activity = make_mailing(session, 60)
        activity_id, activity.campaign.status = activity.id, CampaignStatus.ACTIVE
    expand(activity_id)
    decided = threading.Event()

    def toggle() -> None:
        try:
            for number in range(16):
                with db.transaction() as session:
                    service_function = launch.resume if number % 2 else launch.pause
                    service_function(session, SYSTEM, session.get_one(Activity, activity_id))
        finally:
            decided.set()

    def work() -> None:
        while not decided.is_set():
            deliver(activity_id, 0.2)

    run_in_parallel(toggle, work, work, work)
    while deliver(activity_id):
        pass
    assert count_states(activity_id) == {"sent": 60}
    assert set(count_mails().values()) == {1}


@pytest.mark.parametrize("jump", [timedelta(days=3), timedelta(days=-3), timedelta(minutes=-1)], ids=str)
def test_clock_jump_during_a_batch(
    database: Engine, catcher: int, frozen: FrozenClock, jump: timedelta, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After a jump of three days every lease has expired: the worker stops, and the next one sends the rest."""
    activity_id = launch_mailing(12)

    def move(_session: object) -> None:
        frozen.at += jump

    change_after(monkeypatch, 5, move)
    deliver(activity_id)
    leases.take_over()
    found = count_states(activity_id)
    assert set(found) <= {"sent", "queued"}, "the journal tells what was begun"
    assert sum(found.values()) == 12
    assert ("queued" in found) == (jump > timedelta())
    frozen.at = max(frozen.at, frozen.at - jump)  # A clock set back is corrected, so that the due sends stay due.
    while deliver(activity_id):
        pass
    assert count_states(activity_id) == {"sent": 12}
    assert set(count_mails().values()) == {1}


def test_relay_outage_then_recovery(database: Engine, settings: config.Settings, frozen: FrozenClock) -> None:
    """A relay that is down counts no attempts, and the pauses between its tries grow."""
    activity_id, pauses = launch_mailing(5), []
    config.set_settings(dataclasses.replace(settings, smtp_url="smtp://127.0.0.1:1"))
    for _ in range(7):
        assert scheduler.find_due_work().deliver == [activity_id]
        assert deliver(activity_id) == 0
        with db.read_only_session() as session:
            retry_at = session.get_one(RelayHealth, "127.0.0.1:1").retry_at
        assert retry_at is not None
        pauses.append((retry_at - frozen.at).total_seconds())
        frozen.at = retry_at - timedelta(seconds=1)
        assert scheduler.find_due_work().deliver == []
        frozen.at = retry_at
    assert pauses == [5, 10, 20, 40, 60, 60, 60]
    assert count_states(activity_id) == {"queued": 5}
    assert {send.attempts for send in load_sends(activity_id)} == {0}
    with run_fake_relay(settings):
        assert deliver(activity_id) == 5
    assert count_states(activity_id) == {"sent": 5}
