"""A worker as ``kampania worker`` starts it, told what to do as the tick would tell it, and watched."""

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
_UNDER_WAY = (SendState.QUEUED, SendState.SENDING, SendState.DEFERRED)
_PATIENCE = 600.0
_DEVELOPMENT = ("rich", "pygments", "attr", "greenlet", "psutil")
"""What libraries load when it is there, and only development installs: hidden from the worker that is measured."""


@dataclass(frozen=True, slots=True)
class Run:
    """What one launch cost."""

    rate: float
    """Mails a second, from the wake-up to the last outcome in the database."""
    cpu: float
    """The worker's CPU seconds per 1,000 mails, its parent's included."""


class Worker:
    """One Celery worker with one process that works."""

    def __init__(self, parent: int, broker: Celery) -> None:
        self._parent, self._broker = parent, broker
        self.child = _child_of(parent)

    def launch(self, activity_id: int, mails: int) -> Run:
        """Let it send what is due of an activity, until nothing is under way."""
        began, cpu = time.perf_counter(), self._cpu()
        told = 0.0
        while _left(activity_id):
            if time.perf_counter() - told > 1.0:
                self._broker.send_task("workers.sending.deliver", (activity_id,), queue="sending", expires=2)
                told = time.perf_counter()
            if told - began > _PATIENCE:
                raise TimeoutError("the launch does not end")
            time.sleep(0.02)
        took = time.perf_counter() - began
        return Run(mails / took, (self._cpu() - cpu) * 1000 / mails)

    def memory(self) -> tuple[float, float]:
        """Megabytes of the process that works: resident now, and at most so far."""
        status = dict(line.split(":\t", 1) for line in _proc(self.child, "status").splitlines() if ":\t" in line)
        return tuple(int(status[name].split()[0]) / 1024 for name in ("VmRSS", "VmHWM"))  # type: ignore[return-value]

    def _cpu(self) -> float:
        return sum(_seconds(process) for process in (self._parent, self.child))


def _left(activity_id: int) -> bool:
    with db.reading() as session:
        return any(
            session.scalar(select(Send.id).where(Send.activity_id == activity_id, Send.state == state).limit(1))
            for state in _UNDER_WAY
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
def working(environ: Mapping[str, str]) -> Iterator[Worker]:
    """A worker that only sends, as a grown house has them, and its broker; gone with the block."""
    with servers.valkey() as broker_url, tempfile.TemporaryDirectory() as hidden:
        for name in _DEVELOPMENT:
            Path(hidden, f"{name}.py").write_text("raise ImportError")
        environment = {**os.environ, **environ, "REDIS_URL": broker_url, "PYTHONPATH": f"{hidden}:{ROOT}"}
        broker = Celery(broker=broker_url, set_as_current=False)
        with subprocess.Popen(worker_command(1, "sending"), env=environment, start_new_session=True) as running:
            try:
                yield Worker(running.pid, broker)
            finally:
                os.killpg(running.pid, signal.SIGKILL)
                broker.close()
