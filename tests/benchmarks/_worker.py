"""A sending worker as ``kampania worker`` starts it, triggered as by the scheduler and measured."""

import os
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from celery import Celery
from sqlalchemy import select

from campaigns import db
from campaigns.cli.commands import ROOT, worker_command
from campaigns.delivery.models import Send, SendState
from tests import servers

_TICKS = os.sysconf("SC_CLK_TCK")
_UNFINISHED_STATES = (SendState.QUEUED, SendState.SENDING, SendState.DEFERRED)
_TIMEOUT = 600.0
_DEVELOPMENT_MODULES = ("rich", "pygments", "attr", "greenlet", "psutil")
"""Optional imports of libraries that only development installs; hidden from the measured worker."""


@dataclass(frozen=True, slots=True)
class LaunchCost:
    """Result of one launch."""

    rate: float
    """Mails per second, from the first task to the last result in the database."""
    cpu: float
    """CPU seconds of the worker and its parent per 1,000 mails."""


class Worker:
    """A Celery worker with one child process."""

    def __init__(self, parent: int, broker: Celery) -> None:
        self._parent, self._broker = parent, broker
        self.child = _child_of(parent)

    def launch(self, activity_id: int, mails: int) -> LaunchCost:
        """Send the due mails of an activity and wait until none is in progress."""
        started_at, cpu = time.perf_counter(), self._cpu()
        enqueued_at = 0.0
        while _is_unfinished(activity_id):
            if time.perf_counter() - enqueued_at > 1.0:
                self._broker.send_task("workers.sending.deliver", (activity_id,), queue="bulk", expires=2)
                enqueued_at = time.perf_counter()
            if enqueued_at - started_at > _TIMEOUT:
                raise TimeoutError("the launch does not end")
            time.sleep(0.02)
        seconds = time.perf_counter() - started_at
        return LaunchCost(mails / seconds, (self._cpu() - cpu) * 1000 / mails)

    def memory(self) -> tuple[float, float]:
        """Return megabytes of the child process: (resident now, peak)."""
        status = dict(line.split(":\t", 1) for line in _proc(self.child, "status").splitlines() if ":\t" in line)
        return tuple(int(status[name].split()[0]) / 1024 for name in ("VmRSS", "VmHWM"))  # type: ignore[return-value]

    def _cpu(self) -> float:
        return sum(_seconds(process) for process in (self._parent, self.child))


def _is_unfinished(activity_id: int) -> bool:
    with db.read_only_session() as session:
        return any(
            session.scalar(select(Send.id).where(Send.activity_id == activity_id, Send.state == state).limit(1))
            for state in _UNFINISHED_STATES
        )


def _proc(process: int, name: str) -> str:
    return Path(f"/proc/{process}/{name}").read_text()


def _seconds(process: int) -> float:
    fields = _proc(process, "stat").rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / _TICKS


def _child_of(parent: int) -> int:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        children = _proc(parent, f"task/{parent}/children").split()
        if children:
            return int(children[0])
        time.sleep(0.05)
    raise TimeoutError("the worker has no process that works")


@contextmanager
def running_worker(environ: Mapping[str, str]) -> Iterator[Worker]:
    """Run a worker of the sending queue with a broker of its own, as a production installation does."""
    with servers.valkey() as broker_url, tempfile.TemporaryDirectory() as shadow_folder:
        for name in _DEVELOPMENT_MODULES:
            Path(shadow_folder, f"{name}.py").write_text("raise ImportError")
        environment = {**os.environ, **environ, "REDIS_URL": broker_url, "PYTHONPATH": f"{shadow_folder}:{ROOT}"}
        broker = Celery(broker=broker_url, set_as_current=False)
        with subprocess.Popen(worker_command(1, "bulk"), env=environment, start_new_session=True) as running:
            try:
                yield Worker(running.pid, broker)
            finally:
                os.killpg(running.pid, signal.SIGKILL)
                broker.close()
