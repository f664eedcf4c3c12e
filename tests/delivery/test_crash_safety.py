"""Crash tests: kill -9 of a worker at any instant loses no recipient and mails none twice. ``TORTURE=30``: 30 kills."""

import os
import random
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from sqlalchemy import Engine

from campaigns import config, db
from campaigns.delivery.models import SendState
from campaigns.delivery.queue import batch, leases
from campaigns.delivery.queue.expansion import expand
from campaigns.delivery.queue.journal import BatchJournal
from campaigns.delivery.worker.mail_feed import MailFeed
from campaigns.delivery.worker.worker import deliver
from tests.delivery.launched_activity import count_mails, count_states, load_sends, make_mailing

KILLS = int(os.environ.get("TORTURE", "4"))
SIZE = 50 * KILLS
CONNECTIONS = 4


@contextmanager
def worker_killer(engine: Engine, settings: config.Settings) -> Iterator[Callable[[int, float], None]]:
    """Yields a function (activity id, seconds) that starts a worker on an activity and kills it after that time."""
    environment = {
        **os.environ,
        "KAMPANIA_VAR": str(settings.var),
        "DATABASE_URL": engine.url.render_as_string(hide_password=False),
        "SMTP_URL": config.settings().smtp_url,
        "BASE_URL": settings.base_url,
    }
    command = [sys.executable, "-m", "tests.delivery.kill_worker"]
    with subprocess.Popen(
        command,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=environment,
        cwd=Path(__file__).parents[2],
    ) as started:
        assert started.stdin is not None
        assert started.stdout is not None
        stdin, stdout = started.stdin, started.stdout

        def kill_one(activity_id: int, seconds: float) -> None:
            stdin.write(f"{activity_id} {seconds}\n")
            stdin.flush()
            assert stdout.readline() == "gone\n"

        yield kill_one
        stdin.close()


@pytest.mark.timeout(60 + KILLS * 10)
def test_killed_at_any_instant(database: Engine, catcher: int, settings: config.Settings) -> None:
    rng = random.Random(os.environ.get("TORTURE_SEED", "1"))
    with db.transaction() as session:
        activity_id = make_mailing(session, SIZE).id
    expand(activity_id)
    with worker_killer(database, settings) as kill_one:
        for _ in range(KILLS):
            kill_one(activity_id, rng.uniform(0.0, 0.4))
            leases.take_over()
            assert "sending" not in count_states(activity_id)
    while deliver(activity_id):
        pass
    found = count_states(activity_id)
    times = count_mails()
    assert sum(found.values()) == SIZE
    assert set(found) <= {"sent", "unknown"}
    assert found.get("unknown", 0) <= KILLS * CONNECTIONS
    assert max(times.values()) == 1
    assert {send.address for send in load_sends(activity_id, SendState.SENT)} <= set(times)
    assert set(times) <= {send.address for send in load_sends(activity_id)}


@pytest.mark.parametrize(
    ("instant", "expected"),
    [
        ("claimed", {"queued": 3}),  # The claim is committed, the journal is empty.
        ("began", {"queued": 3}),
        ("intent", {"unknown": 1, "queued": 2}),
        ("answered", {"sent": 1, "queued": 2}),
        ("unrecorded", {"sent": 3}),
    ],
)
def test_killed_at_each_step(database: Engine, catcher: int, instant: str, expected: dict[str, int]) -> None:
    """The same without randomness: the worker process exits at a named point."""
    with db.transaction() as session:
        activity_id = make_mailing(session, 3).id
    expand(activity_id)
    child = os.fork()
    if not child:
        db.engine().dispose(close=False)
        _die_at(instant)
        deliver(activity_id)
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 9
    assert count_states(activity_id) == {"sending": 3}
    assert leases.take_over() == 3
    assert count_states(activity_id) == expected
    assert leases.take_over() == 0


def _die_at(instant: str) -> None:
    """Patch this process so that it exits at the named point."""

    def die(*_: object) -> None:
        os._exit(9)

    def die_after(owner: object, name: str) -> None:
        original = getattr(owner, name)

        def patched(*arguments: object) -> None:
            original(*arguments)
            die()

        setattr(owner, name, patched)

    if instant == "claimed":
        setattr(BatchJournal, "write_ids", die)  # noqa: B010
    elif instant == "began":
        die_after(BatchJournal, "write_ids")
    elif instant == "intent":
        die_after(MailFeed, "before_dot")
    elif instant == "answered":
        setattr(batch, "SendResult", die)  # noqa: B010
    else:
        setattr(batch, "record_results", die)  # noqa: B010
