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
from campaigns.delivery.throttling.rate_limits import DomainBackoff, brakes
from campaigns.delivery.worker import worker as delivering
from campaigns.delivery.worker.worker import deliver
from campaigns.planning import launch
from campaigns.planning.models import Activity, CampaignStatus
from tests.conftest import FrozenClock
from tests.delivery.fake_relay import DROP, EHLO, HANG, Strange, answering
from tests.delivery.launched_activity import mailed, make_mailing, sends, states
from tests.delivery.worker.test_worker import change_after, launched

SEEDS = int(os.environ.get("TORTURE", "1"))
SIZE = 30
_TO = re.compile(rb"^To:.*?<([^>]+)>", re.M)


class Whims:
    """Random replies of a relay, reproducible by seed."""

    def __init__(self, seed: int) -> None:
        self._chance = random.Random(seed)
        self.unclear = 0
        """Number of mails whose final dot got no clear reply: they may have been accepted."""

    def mail(self, _number: int) -> bytes:
        return self._drawn(b"250 ok", [b"421 4.3.2 closing", b"451 4.3.0 later", b"452 4.5.3 too many", DROP])

    def rcpt(self, _number: int) -> bytes:
        return self._drawn(b"250 ok", [b"450 4.2.0 later", b"421 4.7.0 too fast", b"550 5.2.2 full", DROP])

    def data(self, _number: int) -> bytes:
        return self._drawn(b"354 go", [b"451 4.3.0 later", b"421 4.3.2 closing", DROP])

    def dot(self, _number: int) -> bytes:
        answer = self._drawn(b"250 ok", [b"451 4.3.0 later", b"554 5.2.3 too large", b"999 huh", DROP, HANG])
        self.unclear += answer in (b"999 huh", DROP, HANG)
        return answer

    def _drawn(self, usual: bytes, faults: Sequence[bytes]) -> bytes:
        return self._chance.choice(faults) if self._chance.random() < 0.12 else usual


def taken(relay: Strange) -> Counter[str]:
    """Recipient → number of contents that the relay received for it."""
    return Counter(match[1].decode() for content in relay.taken if (match := _TO.search(content)))


def hurry() -> None:
    """Make deferred sends due, and end all backoffs of domains and relays."""
    brakes._domains.clear()
    with db.transaction() as session:
        session.execute(update(Send).where(Send.state == SendState.DEFERRED).values(due_at=clock.now()))
        session.execute(update(RelayHealth).values(retry_at=clock.now()))


@pytest.mark.timeout(60 + SEEDS * 10)
@pytest.mark.parametrize("ehlo", [EHLO, b"250 plain"], ids=["grouped", "lock-step"])
def test_a_relay_with_every_fault(
    database: Engine, settings: config.Settings, ehlo: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(DomainBackoff, "BURST", 1000)
    monkeypatch.setattr(connection, "FINAL_DOT", 0.5)
    monkeypatch.setattr(connection, "_LOOK", 0.05)
    for seed in range(SEEDS):
        activity_id, whims = launched(SIZE), Whims(seed)
        answers = {name: getattr(whims, name) for name in ("mail", "rcpt", "data", "dot")}
        with answering(settings, ehlo=ehlo, **answers) as relay:
            for _ in range(200):
                hurry()
                deliver(activity_id, 0.5)
                leases.take_over()
                if not {"queued", "deferred", "sending"} & set(states(activity_id)):
                    break
        found, times = states(activity_id), taken(relay)
        refused = {send.address for send in sends(activity_id) if send.state is SendState.BOUNCED}
        assert sum(found.values()) == SIZE, seed
        assert set(found) <= {"sent", "unknown", "bounced"}, (seed, found)
        assert found.get("unknown", 0) <= whims.unclear, (seed, found)
        sure = {send.address for send in sends(activity_id, SendState.SENT)}
        maybe = {send.address for send in sends(activity_id, SendState.UNKNOWN)}
        assert sure <= set(times), seed
        assert set(times) - refused <= sure | maybe, seed


def test_every_task_handed_out_several_times_at_once(
    database: Engine, catcher: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(delivering, "_FIRST", 5)
    with db.transaction() as session:
        activity = make_mailing(session, 60)
        activity_id, activity.campaign.status = activity.id, CampaignStatus.ACTIVE
    together(
        *[lambda: expand(activity_id)] * 3,
        *[lambda: deliver(activity_id, 1.0)] * 3,
        *[scheduler.find] * 2,
        *[leases.take_over] * 2,
    )
    while deliver(activity_id):
        pass
    scheduler.find()
    assert states(activity_id) == {"sent": 60}
    assert set(mailed().values()) == {1}
    assert len(mailed()) == 60
    assert list(journal.directory().glob("*.batch")) == []


def together(*works: Callable[[], object]) -> None:
    """Run the functions in parallel threads; raises the first error."""
    errors: list[BaseException] = []

    def kept(work: Callable[[], object]) -> None:
        try:
            work()
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=kept, args=(work,)) for work in works]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if errors:
        raise errors[0]


def test_somebody_who_cannot_decide(database: Engine, catcher: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Repeated pause and resume while three workers run: afterwards every mail is sent exactly once."""
    monkeypatch.setattr(delivering, "_FIRST", 5)
    with db.transaction() as session:
        activity = make_mailing(session, 60)
        activity_id, activity.campaign.status = activity.id, CampaignStatus.ACTIVE
    expand(activity_id)
    decided = threading.Event()

    def undecided() -> None:
        try:
            for number in range(16):
                with db.transaction() as session:
                    verb = launch.resume if number % 2 else launch.pause
                    verb(session, SYSTEM, session.get_one(Activity, activity_id))
        finally:
            decided.set()

    def work() -> None:
        while not decided.is_set():
            deliver(activity_id, 0.2)

    together(undecided, work, work, work)
    while deliver(activity_id):
        pass
    assert states(activity_id) == {"sent": 60}
    assert set(mailed().values()) == {1}


@pytest.mark.parametrize("jump", [timedelta(days=3), timedelta(days=-3), timedelta(minutes=-1)], ids=str)
def test_a_clock_that_jumps_in_the_middle_of_a_slice(
    database: Engine, catcher: int, frozen: FrozenClock, jump: timedelta, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After a jump of three days every lease has expired: the worker stops, and the next one sends the rest."""
    activity_id = launched(12)

    def move(_session: object) -> None:
        frozen.at += jump

    change_after(monkeypatch, 5, move)
    deliver(activity_id)
    leases.take_over()
    found = states(activity_id)
    assert set(found) <= {"sent", "queued"}, "the journal tells what was begun"
    assert sum(found.values()) == 12
    assert ("queued" in found) == (jump > timedelta())
    frozen.at = max(frozen.at, frozen.at - jump)  # A clock set back is corrected, so that the due sends stay due.
    while deliver(activity_id):
        pass
    assert states(activity_id) == {"sent": 12}
    assert set(mailed().values()) == {1}


def test_down_for_the_whole_run_then_back(database: Engine, settings: config.Settings, frozen: FrozenClock) -> None:
    """A relay that is down counts no attempts, and the pauses between its tries grow."""
    activity_id, pauses = launched(5), []
    config.install(dataclasses.replace(settings, smtp_url="smtp://127.0.0.1:1"))
    for _ in range(7):
        assert scheduler.find().deliver == [activity_id]
        assert deliver(activity_id) == 0
        with db.reading() as session:
            retry_at = session.get_one(RelayHealth, "127.0.0.1:1").retry_at
        assert retry_at is not None
        pauses.append((retry_at - frozen.at).total_seconds())
        frozen.at = retry_at - timedelta(seconds=1)
        assert scheduler.find().deliver == []
        frozen.at = retry_at
    assert pauses == [5, 10, 20, 40, 60, 60, 60]
    assert states(activity_id) == {"queued": 5}
    assert {send.attempts for send in sends(activity_id)} == {0}
    with answering(settings):
        assert deliver(activity_id) == 5
    assert states(activity_id) == {"sent": 5}
