"""Crash tests of a whole installation: worker, beat, broker, database and sink are killed at random during a launch.

They take too long for the usual test run, which has test_crash_safety and test_chaos instead. ``TORTURE=50`` runs 50
seeds on both databases, with 2,000 recipients each (``TORTURE_SIZE``), from the seed ``TORTURE_FIRST`` on.
"""

import base64
import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import pytest
from sqlalchemy.exc import SQLAlchemyError

from campaigns import config, db
from campaigns.cli import embedded_broker
from campaigns.cli.commands import ROOT, beat_command, python_command, worker_command
from campaigns.delivery.models import SendState
from campaigns.mail_catcher.store import MailStore
from campaigns.migrations import schema
from campaigns.planning.models import Activity, ActivityStatus, CampaignStatus
from tests import servers
from tests.benchmarks._contacts import make_contacts
from tests.conftest import SECRET
from tests.delivery.launched_activity import count_states, load_sends, make_version
from tests.e2e.installation import free_port
from tests.factories import make_activity, make_campaign, make_organisation
from tests.tracking.test_crash_safety_processes import kill_database

SEEDS = int(os.environ.get("TORTURE", "0"))
FIRST = int(os.environ.get("TORTURE_FIRST", "0"))
RECIPIENTS = int(os.environ.get("TORTURE_SIZE", "2000"))
KILLS = 6
WORKERS, CONNECTIONS = 2, 4
TIMEOUT = 600.0  # Seconds after the last kill within which the launch must finish.
pytestmark = [
    pytest.mark.skipif(sys.platform != "linux", reason="looks at children through /proc"),
    pytest.mark.skipif(not SEEDS, reason="needs minutes: run it with TORTURE=2"),
    pytest.mark.timeout(600 + SEEDS * 900),
]
_UNDER_WAY = {SendState.QUEUED.value, SendState.SENDING.value, SendState.DEFERRED.value}


@dataclass
class Installation:
    """Processes of an installation, restarted when they exit, as the supervisor does."""

    var: Path
    environment: dict[str, str]
    commands: dict[str, Callable[[], Sequence[str]]]
    running: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)

    def start(self, name: str) -> None:
        with (self.var / f"{name}.log").open("ab") as log:
            self.running[name] = subprocess.Popen(
                self.commands[name](), cwd=ROOT, env=self.environment, stdout=log, stderr=log, start_new_session=True
            )

    def kill(self, name: str, rng: random.Random) -> None:
        """Kill -9 a process, one of its children, or its whole process group; then restart it."""
        process = self.running[name]
        children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
        how = rng.choice(("lead", "child", "all"))
        if how == "child" and children:
            with suppress(ProcessLookupError):
                os.kill(int(rng.choice(children)), signal.SIGKILL)
            return
        if how == "all":
            self._end(process)
        process.kill()
        process.wait()
        time.sleep(rng.uniform(0, 0.3))
        self.start(name)

    def restart_exited(self) -> None:
        """Restart processes that have exited by themselves, as a worker may when its broker is killed."""
        for name, process in list(self.running.items()):
            if process.poll() is not None:
                self.start(name)

    def stop(self) -> None:
        for process in self.running.values():
            self._end(process)
            process.wait()

    @staticmethod
    def _end(process: subprocess.Popen[bytes]) -> None:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)

    def logs(self) -> str:
        return "\n".join(f"== {path.name}\n{path.read_text()[-3000:]}" for path in self.var.glob("*.log"))


@contextmanager
def running_installation(url: str, var: Path) -> Iterator[Installation]:
    """A running installation (broker, sink, worker, beat) with RECIPIENTS contacts in its database."""
    port = free_port()
    environment = {
        "KAMPANIA_VAR": str(var),
        "DATABASE_URL": url,
        "SMTP_URL": f"smtp://127.0.0.1:{port}",
        "TIME_SCALE": "600",
        "SECRET_KEYS": f"1:{base64.b64encode(SECRET).decode()}",
        "BASE_URL": "http://127.0.0.1:1",
    }
    engine = db.make_engine(url)
    schema.upgrade(engine)
    db.set_engine(engine)
    settings = config.read(environment)
    config.set_settings(settings)
    with db.transaction() as session:
        make_organisation(session)
        make_contacts(session, RECIPIENTS)
    clean = {name: value for name, value in os.environ.items() if not name.endswith("_URL")}
    installation = Installation(
        var,
        {**clean, "PYTHONPATH": str(ROOT), **environment},
        {
            "broker": lambda: embedded_broker.broker_command(settings),
            "sink": lambda: python_command("campaigns.mail_catcher.store", "--port", str(port)),
            "worker": lambda: worker_command(WORKERS),
            "beat": beat_command,
        },
    )
    try:
        for name in installation.commands:
            installation.start(name)
        yield installation
    finally:
        installation.stop()
        engine.dispose()


def launch(seed: int) -> int:
    with db.transaction() as session:
        campaign = make_campaign(session, status=CampaignStatus.ACTIVE)
        version = make_version(session, subject=f"Seed {seed}.")
        values = {"status": ActivityStatus.LIVE, "message_id": version.message_id, "version_id": version.id}
        return make_activity(session, campaign, **values, due_at=version.created_at).id


def caught(seed: int) -> Counter[str]:
    """Recipient → number of mails of this seed in the sink."""
    with MailStore().open() as connection:
        rows = connection.execute(
            "SELECT recipient, count(*) FROM mails WHERE subject = ? GROUP BY 1", (f"Seed {seed}.",)
        )
        return Counter(dict(rows.fetchall()))


def run_with_kills(
    installation: Installation, victims: Sequence[str], kill: Callable[[str, random.Random], None], seed: int
) -> str:
    """Run one launch with DEATHS kills, check its result, and return a summary line."""
    rng, deaths, began = random.Random(seed), Counter[str](), time.monotonic()
    activity_id = launch(seed)
    for number in range(KILLS):
        before = len(caught(seed))
        time.sleep(rng.uniform(0.0, 1.2))
        if number:  # Kill mostly while mails are in flight: a restarted worker needs some time.
            wait_until(partial(_has_progressed, seed, activity_id, before), TIMEOUT, installation)
        victim = rng.choice(victims)
        deaths[victim] += 1
        kill(victim, rng)
    wait_until(lambda: _is_over(activity_id), TIMEOUT, installation)
    found, times = count_states(activity_id), caught(seed)
    summary = f"seed {seed}: {found}, caught {len(times)}, killed {dict(deaths)}, {time.monotonic() - began:.0f} s"
    assert sum(found.values()) == RECIPIENTS, summary
    assert set(found) <= {"sent", "unknown"}, summary
    assert max(times.values()) == 1, f"mailed twice: {summary}"
    assert {send.address for send in load_sends(activity_id, SendState.SENT)} <= set(times), f"lost: {summary}"
    assert found.get("unknown", 0) <= KILLS * WORKERS * CONNECTIONS, summary
    with db.read_only_session() as session:
        assert session.get_one(Activity, activity_id).status is ActivityStatus.FINISHED, summary
    return summary


def _has_progressed(seed: int, activity_id: int, before: int) -> bool:
    return len(caught(seed)) > before or _is_over(activity_id)


def _is_over(activity_id: int) -> bool:
    with db.read_only_session() as session:
        finished = session.get_one(Activity, activity_id).status is ActivityStatus.FINISHED
    return finished and not _UNDER_WAY & set(count_states(activity_id))


def wait_until(condition: Callable[[], bool], seconds: float, installation: Installation) -> None:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        installation.restart_exited()
        with suppress(SQLAlchemyError):
            if condition():
                return
        time.sleep(0.05)
    raise AssertionError(installation.logs())


VICTIMS = ("worker", "worker", "beat", "broker", "sink")


def test_processes_killed_on_sqlite(settings: config.Settings, tmp_path: Path) -> None:
    with running_installation(f"sqlite:///{tmp_path / 'kampania.db'}", tmp_path) as installation:
        for seed in range(FIRST, FIRST + SEEDS):
            sys.stderr.write(run_with_kills(installation, VICTIMS, installation.kill, seed) + "\n")


def test_processes_killed_on_postgres(settings: config.Settings, tmp_path: Path) -> None:
    with ExitStack() as stack:
        server = stack.enter_context(servers.postgres_server())
        server.stop()
        # As in production; the test server turns it off.
        server.command = [*server.command, "-c", "synchronous_commit=on"]
        server.start()
        installation = stack.enter_context(running_installation(server.url, tmp_path))

        def kill(victim: str, chance: random.Random) -> None:
            kill_database(server, chance) if victim == "database" else installation.kill(victim, chance)

        for seed in range(FIRST, FIRST + SEEDS):
            sys.stderr.write(run_with_kills(installation, (*VICTIMS, "database"), kill, seed) + "\n")
