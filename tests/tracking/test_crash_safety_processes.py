"""Crash tests of a running installation: web and collector processes, with kill -9 of the database or the collector.

One kill by default; ``TORTURE=50`` runs fifty.
"""

import base64
import http.client
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import TypeVar

import pytest
from sqlalchemy import Engine, event, func, select
from sqlalchemy.exc import SQLAlchemyError

from campaigns import clock, config, db
from campaigns.audience.models import ConsentLevel
from campaigns.migrations import schema
from tests import servers
from tests.conftest import SECRET, FrozenClock
from tests.e2e.installation import ROOT, free_port
from tests.tracking.collector.test_collector import check_counts
from tests.tracking.fixtures import Mailing, events, make_mailing, set_tracking_consent
from tests.tracking.test_crash_safety import fork_process
from tests.tracking.web_server import web_server
from tracking.bots import final_labels
from tracking.collector import collector
from tracking.counters import bulk_sql
from tracking.models.events import Event, TrafficLabel, UserAgent
from tracking.spool import reader

T = TypeVar("T")
KILLS = int(os.environ.get("TORTURE", "1"))
CLIENTS, RECIPIENTS, LINKS = 2, 40, 4
DEADLINE_SECONDS = 100.0 + 20 * (
    KILLS - 1
)  # Deadline in seconds for everything to be counted; more kills leave more to count.
posix = pytest.mark.skipif(sys.platform != "linux", reason="looks at locks and children through /proc")


@dataclass
class Installation:
    """Processes of an installation on one host, and the numbers of requested and answered hits."""

    var: Path
    port: int
    environment: dict[str, str]
    collectors: list[subprocess.Popen[bytes]] = field(default_factory=list)
    answered: set[int] = field(default_factory=set)
    requested: set[int] = field(default_factory=set)

    def start_collector(self) -> None:
        with (self.var / "collector.log").open("ab") as log:
            command = [sys.executable, "-m", "tracking.collector.collector"]
            self.collectors.append(subprocess.Popen(command, cwd=ROOT, env=self.environment, stdout=log, stderr=log))

    @property
    def active_collector(self) -> subprocess.Popen[bytes] | None:
        """The collector that holds the lock."""
        lock = self.var / "spool" / collector.LOCK_NAME
        inode = str(lock.stat().st_ino) if lock.exists() else ""
        held = [line.split() for line in Path("/proc/locks").read_text().splitlines() if "FLOCK" in line]
        pids = {int(words[4]) for words in held if words[1] == "FLOCK" and words[5].rpartition(":")[2] == inode}
        return next((one for one in self.collectors if one.pid in pids and one.poll() is None), None)

    def kill_active_collector(self) -> int:
        """kill -9 the active collector. Returns the pid of the collector that takes over."""
        killed = eventually(lambda: self.active_collector)
        killed.kill()
        killed.wait()
        self.collectors.remove(killed)
        successor = eventually(lambda: self.active_collector)
        self.start_collector()
        return int(successor.pid)


def eventually(probe: Callable[[], T | None]) -> T:
    deadline = time.monotonic() + DEADLINE_SECONDS
    while True:
        with suppress(SQLAlchemyError):
            if (answer := probe()) is not None and answer is not False:
                return answer
        assert time.monotonic() < deadline
        time.sleep(0.05)


@contextmanager
def running_installation(url: str, var: Path) -> Iterator[tuple[Installation, Mailing]]:
    """Start a web process and two collectors on a database with a sent mailing. Time thresholds are
    divided by 10,000.
    """
    secret = f"1:{base64.b64encode(SECRET).decode()}"
    settings_env = {"DATABASE_URL": url, "SECRET_KEYS": secret, "TIME_SCALE": "10000"}
    clean = {name: value for name, value in os.environ.items() if not name.endswith("_URL")}
    engine = db.make_engine(url)
    schema.upgrade(engine)
    db.set_engine(engine)
    config.set_settings(config.read({"KAMPANIA_VAR": str(var), **settings_env}))
    mailing, port = make_mailing(RECIPIENTS), free_port()
    installation = Installation(var, port, {**clean, "KAMPANIA_VAR": str(var), "PYTHONPATH": str(ROOT), **settings_env})
    with web_server(var, port, **settings_env):
        try:
            installation.start_collector()
            installation.start_collector()
            eventually(lambda: installation.active_collector)
            yield installation, mailing
        finally:
            for one in installation.collectors:
                one.kill()
                one.wait()
            engine.dispose()


def send_requests(installation: Installation, mailing: Mailing, stop: threading.Event, seed: int) -> None:
    """Request pixels and links, each with a user agent of its own, until stopped."""
    chance, number = random.Random(seed), seed << 24
    web = http.client.HTTPConnection("127.0.0.1", installation.port, timeout=DEADLINE_SECONDS)
    while not stop.is_set():
        number += 1
        token = mailing.token(chance.randrange(RECIPIENTS))
        path = chance.choice([f"/o/{token}", f"/c/{token}/{chance.randint(1, LINKS)}"])
        installation.requested.add(number)
        web.request("GET", path, headers={"User-Agent": f"Stranger {number}"})
        answer = web.getresponse()
        answer.read()
        assert answer.status in (200, 302), "an answer never waits for the database"
        installation.answered.add(number)
        time.sleep(chance.expovariate(200))
    web.close()


def label_until_stopped(stop: threading.Event) -> None:
    while not stop.is_set():
        with suppress(SQLAlchemyError):
            final_labels.settle_due(limit=100)
        time.sleep(0.01)


def logged_hit_numbers() -> Counter[int]:
    """The number of logged events by hit number."""
    with db.read_only_session() as session:
        programs = session.execute(
            select(UserAgent.text).select_from(Event).outerjoin(UserAgent, UserAgent.id == Event.user_agent_id)
        )
        return Counter(int(text.removeprefix("Stranger ")) for (text,) in programs if text.startswith("Stranger "))


def kill_database(server: servers.Server, chance: random.Random) -> None:
    """kill -9 of PostgreSQL: either of one backend, after which the server restarts itself, or of all processes."""
    children = Path(f"/proc/{server.pid}/task/{server.pid}/children").read_text().split()
    whole = chance.random() < 0.7
    if whole:
        server.kill()
    for pid in children if whole else children[-1:]:
        with suppress(ProcessLookupError):
            os.kill(int(pid), signal.SIGKILL)
    if whole:
        time.sleep(chance.uniform(0, 0.5))
        server.start()


def run_under_kills(
    installation: Installation, mailing: Mailing, kill: Callable[[random.Random], object], seed: int
) -> None:
    stop, errors = threading.Event(), list[BaseException]()

    def collect_errors(work: Callable[[], None]) -> None:
        try:
            work()
        except BaseException as error:
            errors.append(error)

    threads = [
        threading.Thread(
            target=collect_errors, args=(lambda n=n: send_requests(installation, mailing, stop, seed << 4 | n + 1),)
        )
        for n in range(CLIENTS)
    ]
    threads.append(threading.Thread(target=collect_errors, args=(lambda: label_until_stopped(stop),)))
    for thread in threads:
        thread.start()
    chance = random.Random(seed)
    try:
        for death in range(min(5, KILLS)):
            time.sleep(chance.uniform(0.1, 1.0))
            kill(chance)
            if death % 3 == 1:
                installation.kill_active_collector()
        enough = len(installation.answered) + 100
        eventually(lambda: errors or len(installation.answered) > enough)
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    assert not errors, errors
    check_log(installation)


def check_log(installation: Installation) -> None:
    eventually(lambda: installation.answered <= logged_hit_numbers().keys())
    logged = logged_hit_numbers()
    assert set(logged.values()) == {1}, "nothing is counted twice"
    assert logged.keys() <= installation.requested
    assert len(logged.keys() - installation.answered) <= CLIENTS
    eventually(all_settled)
    check_counts()


def all_settled() -> bool:
    while final_labels.settle_due():
        pass
    with db.read_only_session() as session:
        return not session.scalar(select(func.count()).select_from(Event).where(Event.label == TrafficLabel.SETTLING))


@posix
def test_kill_of_postgres_loses_nothing(settings: config.Settings, tmp_path: Path) -> None:
    with ExitStack() as stack:
        server = stack.enter_context(servers.postgres_server())
        server.stop()
        # The setting of an installation that needs durability.
        server.command = [*server.command, "-c", "synchronous_commit=on"]
        server.start()
        installation, mailing = stack.enter_context(running_installation(server.url, tmp_path))
        for seed in range(max(1, KILLS // 5)):
            run_under_kills(installation, mailing, lambda chance: kill_database(server, chance), seed)


@posix
def test_a_killed_collector_is_replaced_by_the_other(settings: config.Settings, tmp_path: Path) -> None:
    with running_installation(f"sqlite:///{tmp_path / 'kampania.db'}", tmp_path) as (installation, mailing):
        eventually(lambda: len(installation.collectors) == 2)
        assert [one.poll() for one in installation.collectors] == [None, None], "the one that waits lives, too"
        withdraw_consent_between_hits(installation, mailing)
        for seed in range(max(1, KILLS // 5)):
            run_under_kills(installation, mailing, lambda _chance: installation.kill_active_collector(), seed)


def withdraw_consent_between_hits(installation: Installation, mailing: Mailing) -> None:
    """A hit before the withdrawal keeps its send id even when it is counted afterwards; a later hit has none."""

    def click() -> None:
        web = http.client.HTTPConnection("127.0.0.1", installation.port, timeout=DEADLINE_SECONDS)
        web.request("GET", f"/c/{mailing.token(1)}/1", headers={"User-Agent": "Somebody"})
        assert web.getresponse().status == 302
        web.close()

    # While this transaction holds SQLite's write lock, no collector is stopped in the middle of a write.
    with db.transaction() as session:
        session.connection()
        for one in installation.collectors:
            one.send_signal(signal.SIGSTOP)
    click()
    with db.transaction() as session:
        set_tracking_consent(session, mailing.contacts[1], ConsentLevel.NONE, clock.now())
    click()
    for one in installation.collectors:
        one.send_signal(signal.SIGCONT)
    eventually(lambda: len(events()) >= 2)
    assert [event.send_id for event in events() if event.activity_id] == [mailing.sends[1], None]


STEPS = ("insert_events", "add_to_rollups", "relabel_events", "upsert_first_seen", "widen_milestones", "commit")


@posix
@pytest.mark.parametrize("step", STEPS)
def test_a_process_killed_within_its_transaction_writes_nothing(
    database: Engine, settings: config.Settings, step: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    hasty = {name: getattr(settings, name) for name in settings.__slots__} | {"time_scale": 10_000.0}
    config.set_settings(config.Settings(**hasty))
    mailing = make_mailing(5)
    for index in range(5):
        mailing.click(1, index), mailing.open(index), mailing.open(index, method="HEAD")

    def work() -> None:
        if step == "commit":
            event.listen(db.engine(), "commit", lambda _connection: os.kill(os.getpid(), signal.SIGKILL))
        else:
            done = getattr(bulk_sql, step)

            def last(*arguments: object, **named: object) -> None:
                done(*arguments, **named)
                os.kill(os.getpid(), signal.SIGKILL)

            monkeypatch.setattr(bulk_sql, step, last)
        collector.collect_once()
        time.sleep(0.2)
        final_labels.settle_due()

    pid = fork_process(database, work)
    assert os.WIFSIGNALED(os.waitpid(pid, 0)[1]), "it came to that step"
    settled = step in ("upsert_first_seen", "relabel_events", "widen_milestones")
    assert len(events()) == (15 if settled else 0)
    check_counts()
    assert collector.collect_once() == (0 if settled else 15)
    time.sleep(0.2)
    while final_labels.settle_due():
        pass
    assert len(events()) == 15
    assert TrafficLabel.SETTLING not in {TrafficLabel(one.label) for one in events()}
    check_counts()


def test_clock_jumps_lose_and_double_nothing(database: Engine, frozen: FrozenClock) -> None:
    """Clock jumps in instants of hits and file times, in both directions."""
    mailing, began = make_mailing(6), clock.now()
    for index, jump in enumerate((0, -86_400, 3_600, -7_200, 2 * 86_400, 0)):
        frozen.at = began + timedelta(seconds=jump)
        mailing.click(1, index), mailing.open(index)
        if index % 2:
            assert collector.collect_once() == 4
    for directory in [config.settings().spool]:
        for moved, of_spool in zip((-(10**6), 10**6), reader.list_spools(directory).values(), strict=False):
            for file in of_spool:
                os.utime(file.path, (time.time() + moved,) * 2)
    frozen.at = began + timedelta(minutes=30)
    assert collector.collect_once() == 0
    collector.Collector().delete_counted_files()
    assert len(events()) == 12
    check_counts()
    while final_labels.settle_due():
        pass
    settling = {one.send_id for one in events() if one.label == TrafficLabel.SETTLING}
    assert settling == {mailing.sends[2], mailing.sends[4]}, "what lies in the future waits for its time"
    check_counts()
    frozen.at = began + timedelta(days=3)
    while final_labels.settle_due():
        pass
    assert TrafficLabel.SETTLING not in {one.label for one in events()}
    check_counts()
