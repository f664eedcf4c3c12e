"""Supervisor of one machine's processes: starts, watches, restarts and stops them.

It is a single loop in a single thread. Each process leads its own process group, so that Ctrl-C reaches the supervisor
alone. The supervisor stops the others in an order that loses nothing: processes which others need until they have
ended, such as the broker, are stopped last. On Linux the kernel terminates them when the supervisor is killed.
"""

import contextlib
import ctypes
import fcntl
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

_TICK = 0.1
_MAX_RESTART_DELAY = 10.0
_HEALTHY_AFTER = 10.0
"""Seconds. A process that ran this long is restarted with the shortest delay."""
_MAX_LOG_BYTES = 10_000_000
_PR_SET_PDEATHSIG = 1
LOOPBACK_OF = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104
"""Address to connect to when a server listens on every address."""


class StartupError(Exception):
    """The installation can't be started; the message says why and what to do."""


@dataclass(slots=True)
class Service:
    """One supervised process."""

    name: str
    command: Callable[[], Sequence[str]]
    """Called at each start, since a start may need to clean up first."""
    is_ready: Callable[[], bool] = lambda: True
    stop_timeout: float = 10.0
    """Seconds between SIGTERM and SIGKILL."""
    stops_last: bool = False
    """Whether other processes need it until they have ended."""
    process: subprocess.Popen[bytes] | None = None
    started_at: float = 0.0
    restart_delay: float = 0.0
    restart_at: float = 0.0
    start_count: int = 0


def _parent_death_hook() -> Callable[[], None] | None:
    if sys.platform != "linux":
        return None
    libc = ctypes.CDLL(None, use_errno=True)  # Loaded before fork: the child must not load libraries.
    supervisor = os.getpid()

    def die_with_supervisor() -> None:
        libc.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
        if os.getppid() != supervisor:  # The supervisor died between fork and prctl.
            os._exit(1)

    return die_with_supervisor


@dataclass
class Supervisor:
    """Runs ``services``, started in this order, until a signal or until the foreground command has ended."""

    services: list[Service]
    logs: Path
    environment: dict[str, str]
    report: Callable[[str], None]
    foreground_command: Callable[[], Sequence[str]] | None = None
    """Returns a command to run once everything is ready; its failure ends the installation."""
    keep_running: bool = True
    """Whether to keep running after the foreground command has succeeded."""
    on_ready: Callable[[], None] = lambda: None
    """Called once everything is ready."""
    _stop_signals: int = field(default=0, init=False)
    _foreground_process: subprocess.Popen[bytes] | None = field(default=None, init=False)
    _exit_code: int = field(default=0, init=False)

    def run(self) -> int:
        """Run until stopped. Returns the foreground command's exit code, or 0 after a signal."""
        before = {number: signal.signal(number, self._on_stop_signal) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            if self._start_all():
                self.on_ready()
                self._start_foreground()
                self._watch()
        finally:
            self._stop_all()
            for number, action in before.items():
                signal.signal(number, action)
        return self._exit_code

    def _on_stop_signal(self, _number: int, _frame: object) -> None:
        self._stop_signals += 1

    def _start_all(self) -> bool:
        for service in self.services:
            self._start(service)
            if service.name == "broker":  # The others only log connection errors without it.
                self._wait_until_ready(service, 15)
        for service in self.services:
            self._wait_until_ready(service, 60)
            if self._stop_signals:
                return False
        return True

    def _wait_until_ready(self, service: Service, seconds: float) -> None:
        deadline = time.monotonic() + seconds
        while not self._stop_signals and not (self._is_alive(service) and service.is_ready()):
            self._restart_if_dead(service)
            if time.monotonic() > deadline:
                raise StartupError(f"{service.name} did not become ready; its log is {self._log_path(service.name)}")
            time.sleep(_TICK / 2)

    def _log_path(self, name: str) -> Path:
        return self.logs / f"{name}.log"

    def _open_log(self, name: str) -> IO[bytes]:
        self.logs.mkdir(mode=0o700, parents=True, exist_ok=True)
        path = self._log_path(name)
        if path.exists() and path.stat().st_size > _MAX_LOG_BYTES:
            path.replace(path.with_suffix(".log.1"))
        return path.open("ab")

    def _spawn(self, command: Sequence[str], **streams: Any) -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            list(command),
            env=self.environment,
            stdin=subprocess.DEVNULL,
            start_new_session=True,
            preexec_fn=_parent_death_hook(),  # Safe: this process has one thread.
            **streams,
        )

    def _start(self, service: Service) -> None:
        service.started_at = time.monotonic()
        service.start_count += 1
        with self._open_log(service.name) as log:
            service.process = self._spawn(service.command(), stdout=log, stderr=subprocess.STDOUT)

    @staticmethod
    def _is_alive(service: Service) -> bool:
        return service.process is not None and service.process.poll() is None

    def _restart_if_dead(self, service: Service) -> None:
        """Restart the process when it has died and its restart delay is over."""
        if service.process is None:
            if time.monotonic() >= service.restart_at:
                self._start(service)
            return
        code = service.process.poll()
        if code is None:
            return
        _signal_group(service.process.pid, signal.SIGKILL)  # Children that the dead process left behind.
        lived = time.monotonic() - service.started_at
        service.restart_delay = (
            0.2 if lived > _HEALTHY_AFTER else min(_MAX_RESTART_DELAY, max(0.2, service.restart_delay * 2))
        )
        service.process, service.restart_at = None, time.monotonic() + service.restart_delay
        self.report(
            f"{service.name} ended with {code} after {lived:.0f} s; starting it again in {service.restart_delay:.1f} s"
        )

    def _start_foreground(self) -> None:
        if self.foreground_command is not None:
            self._foreground_process = self._spawn(self.foreground_command())

    def _watch(self) -> None:
        while not self._stop_signals:
            for service in self.services:
                self._restart_if_dead(service)
            if self._foreground_process is not None and (code := self._foreground_process.poll()) is not None:
                self._foreground_process = None
                self._exit_code = code
                if code or not self.keep_running:
                    return
            time.sleep(_TICK)

    def _stop_all(self) -> None:
        if self._foreground_process is not None:
            self._terminate({self._foreground_process: 3})
        for stops_last in (False, True):
            ending = [each for each in self.services if each.stops_last is stops_last]
            self._terminate({each.process: each.stop_timeout for each in ending if each.process is not None})
            for service in ending:
                service.process = None

    def _terminate(self, processes: Mapping[subprocess.Popen[bytes], float]) -> None:
        """Terminate the processes in parallel; kill each after its timeout, and its process group in any case.

        ``processes`` maps a process to its timeout in seconds. A second signal to the supervisor skips the timeouts.
        """
        began = time.monotonic()
        for process in processes:
            process.terminate()
        for process, timeout in processes.items():
            while process.poll() is None and time.monotonic() < began + timeout and self._stop_signals < 2:
                time.sleep(_TICK / 2)
            _signal_group(process.pid, signal.SIGKILL)
            process.wait()


def _signal_group(leader: int, number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):  # macOS returns EPERM for a group of zombies.
        os.killpg(leader, number)


@contextlib.contextmanager
def lock_installation(var: Path) -> Iterator[None]:
    """Hold a file lock on ``var``; raises StartupError when another supervisor holds it."""
    with (var / "installation.lock").open("a+") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            lock.seek(0)
            raise StartupError(
                f"Kampania runs already on {var} (process {lock.read().strip() or '?'}). "
                "Stop it first, or set KAMPANIA_VAR to another folder."
            ) from None
        lock.seek(0)
        lock.truncate()
        lock.write(f"{os.getpid()}\n")
        lock.flush()
        yield


def is_port_free(host: str, port: int) -> bool:
    """Whether the port can be bound at the moment."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError:
            return False
    return True


def is_listening(host: str, port: int) -> bool:
    """Whether a server accepts connections there."""
    try:
        socket.create_connection((LOOPBACK_OF.get(host, host), port), timeout=1).close()
    except OSError:
        return False
    return True


def free_port(host: str, preferred: int, *, try_next_ports: bool, option: str) -> int:
    """The preferred port when it is free, else the next free one of a hundred.

    Raises StartupError when none is free or other ports are not to be tried; ``option`` is named in its message.
    """
    if is_port_free(host, preferred):
        return preferred
    if try_next_ports:
        for port in range(preferred + 1, min(preferred + 100, 65536)):
            if is_port_free(host, port):
                return port
    raise StartupError(f"port {preferred} on {host} is taken by another program; choose another with {option}")
