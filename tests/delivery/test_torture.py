"""kill -9 at any instant loses nobody and mails nobody twice. ``TORTURE=30`` kills more often."""

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from sqlalchemy import Engine

from campaigns import config, db
from campaigns.delivery import claiming
from campaigns.delivery import deliver as delivering
from campaigns.delivery.deliver import deliver
from campaigns.delivery.expansion import expand
from campaigns.delivery.journal import Journal
from campaigns.delivery.models import SendState
from campaigns.delivery.smtp import Connection
from tests.delivery.mailing import mailed, make_mailing, sends, states

KILLS = int(os.environ.get("TORTURE", "3"))
SIZE = 100 * KILLS


def sender(activity_id: int, engine: Engine, settings: config.Settings) -> subprocess.Popen[bytes]:
    environment = {
        **os.environ,
        "KAMPANIA_VAR": str(settings.var),
        "DATABASE_URL": engine.url.render_as_string(hide_password=False),
        "SMTP_URL": config.settings().smtp_url,
        "BASE_URL": settings.base_url,
    }
    started = subprocess.Popen(
        [sys.executable, "-m", "tests.delivery.sender", str(activity_id)],
        stdout=subprocess.PIPE,
        env=environment,
        cwd=Path(__file__).parents[2],
    )
    assert started.stdout is not None
    assert started.stdout.readline() == b"ready\n"
    return started


@pytest.mark.timeout(60 + KILLS * 10)
@pytest.mark.parametrize("seed", [1, 2])
def test_killed_at_any_instant(database: Engine, catcher: int, settings: config.Settings, seed: int) -> None:
    dice = random.Random(seed)
    with db.transaction() as session:
        activity_id = make_mailing(session, SIZE).id
    expand(activity_id)
    for _ in range(KILLS):
        worker = sender(activity_id, database, settings)
        time.sleep(dice.uniform(0.0, 0.4))
        worker.send_signal(signal.SIGKILL)
        worker.wait()
        assert worker.stdout is not None
        worker.stdout.close()
        claiming.take_over()
        assert "sending" not in states(activity_id)
    while deliver(activity_id):
        pass
    found = states(activity_id)
    times = mailed()
    assert sum(found.values()) == SIZE
    assert set(found) <= {"sent", "unknown"}
    assert found.get("unknown", 0) <= KILLS
    assert max(times.values()) == 1
    assert {send.address for send in sends(activity_id, SendState.SENT)} <= set(times)
    assert set(times) <= {send.address for send in sends(activity_id)}


@pytest.mark.parametrize(
    ("instant", "after"),
    [
        ("claimed", {"queued": 3}),  # the claim is committed, the journal is empty
        ("began", {"queued": 3}),
        ("intent", {"unknown": 1, "queued": 2}),
        ("answered", {"sent": 1, "queued": 2}),
        ("unrecorded", {"sent": 3}),
    ],
)
def test_killed_at_each_instant(
    database: Engine, catcher: int, instant: str, after: dict[str, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same without chance: the process ends in the place named, its journal's lock goes with it."""

    class Killed(BaseException):
        pass

    def die(*_: object) -> None:
        raise Killed

    def die_after(owner: object, name: str) -> None:
        original = getattr(owner, name)

        def patched(*arguments: object) -> None:
            original(*arguments)
            die()

        monkeypatch.setattr(owner, name, patched)

    if instant == "claimed":
        monkeypatch.setattr(Journal, "begin", die)
    elif instant == "began":
        die_after(Journal, "begin")
    elif instant == "intent":
        monkeypatch.setattr(Connection, "_dot", die)
    elif instant == "answered":
        monkeypatch.setattr(delivering, "Result", die)
    else:
        monkeypatch.setattr(delivering, "record", die)
    with db.transaction() as session:
        activity_id = make_mailing(session, 3).id
    expand(activity_id)
    with pytest.raises(Killed):
        deliver(activity_id)
    assert states(activity_id) == {"sending": 3}
    monkeypatch.undo()
    assert claiming.take_over() == 3
    assert states(activity_id) == after
    assert claiming.take_over() == 0
