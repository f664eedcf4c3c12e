"""The supervisor restarts processes, stops them in order, and leaves none behind."""

import os
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pytest

from campaigns.cli import supervisor

ROOT = Path(__file__).parents[2]

PROGRAM = """
import sys
from pathlib import Path
from campaigns.cli.supervisor import Service, Supervisor

var = Path(sys.argv[1])
CHILD = "import os, signal, sys, time; from pathlib import Path; var = Path(sys.argv[1]); name = sys.argv[2]\\n" \\
    "(var / f'{name}.pid').write_text(str(os.getpid()))\\n" \\
    "def stop(*_): open(var / 'stopped', 'a').write(name + chr(10)); sys.exit(0)\\n" \\
    "signal.signal(signal.SIGTERM, stop)\\n" \\
    "(var / f'{name}.child').write_text(str(os.fork() or os.getpid()))\\n" \\
    "time.sleep(100)"

def service(name):
    command = [sys.executable, "-c", CHILD, str(var), name]
    return Service(name, lambda: command, (var / f"{name}.pid").exists, stops_last=name == "first")

foreground = [sys.executable, "-c", sys.argv[2]] if len(sys.argv) > 2 else None
supervisor = Supervisor([service("first"), service("second")], var / "log", {"PATH": "/usr/bin:/bin"},
    lambda line: print(line, flush=True), (lambda: foreground) if foreground else None, keep_running=False)
sys.exit(supervisor.run())
"""


def wait_until(condition: Callable[[], object], seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "waited too long"
        time.sleep(0.02)


def is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
        return Path(f"/proc/{pid}/stat").read_text().split()[2] != "Z" if sys.platform == "linux" else True
    except (ProcessLookupError, FileNotFoundError):  # FileNotFoundError: the process ended between kill and read.
        return False


def pid_of(var: Path, name: str) -> int:
    try:
        return int((var / f"{name}.pid").read_text())
    except (FileNotFoundError, ValueError):
        return 0


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., subprocess.Popen[str]]]:
    running = []

    def started(*words: str) -> subprocess.Popen[str]:
        command = [sys.executable, "-c", textwrap.dedent(PROGRAM), str(tmp_path), *words]
        running.append(subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True))
        return running[-1]

    yield started
    for each in running:
        each.terminate()
        each.communicate()


Start = Callable[..., subprocess.Popen[str]]


def test_a_killed_process_is_restarted(start: Start, tmp_path: Path) -> None:
    start()
    for name in ("first", "second"):
        wait_until(partial(pid_of, tmp_path, name))
        killed = pid_of(tmp_path, name)
        os.kill(killed, signal.SIGKILL)
        wait_until(partial(_has_new_pid, tmp_path, name, killed))
        assert is_alive(pid_of(tmp_path, name))


def _has_new_pid(var: Path, name: str, killed: int) -> bool:
    return pid_of(var, name) not in (0, killed)


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM])
def test_needed_processes_end_last_and_none_is_left(start: Start, tmp_path: Path, how: signal.Signals) -> None:
    supervisor = start()
    wait_until(lambda: (tmp_path / "second.child").exists() and pid_of(tmp_path, "second"))
    pids = [int(path.read_text() or 0) for path in tmp_path.iterdir() if path.suffix in (".pid", ".child")]
    supervisor.send_signal(how)
    assert supervisor.wait(60) == 0
    stopped = (tmp_path / "stopped").read_text().split()
    assert [stopped[0], stopped[-1]] == ["second", "first"]
    wait_until(lambda: not any(is_alive(pid) for pid in pids if pid))


@pytest.mark.skipif(sys.platform != "linux", reason="the kernel tells children of their parent's death on Linux only")
def test_killing_the_supervisor_ends_its_processes(start: Start, tmp_path: Path) -> None:
    supervisor = start()
    wait_until(lambda: pid_of(tmp_path, "first") and pid_of(tmp_path, "second"))
    pids = [pid_of(tmp_path, name) for name in ("first", "second")]
    supervisor.kill()
    wait_until(lambda: not any(map(is_alive, pids)))


@pytest.mark.parametrize(("foreground", "code"), [("print('done')", 0), ("raise SystemExit(3)", 3)])
def test_the_supervisor_ends_with_its_foreground_command(start: Start, foreground: str, code: int) -> None:
    supervisor = start(foreground)
    out, _ = supervisor.communicate(timeout=60)
    assert supervisor.returncode == code
    assert ("done" in out) is (code == 0)


def test_one_supervisor_per_directory(tmp_path: Path) -> None:
    with (
        supervisor.lock_installation(tmp_path),
        pytest.raises(supervisor.StartupError, match="KAMPANIA_VAR"),
        supervisor.lock_installation(tmp_path),
    ):
        pass
    with supervisor.lock_installation(tmp_path):
        pass


def test_a_taken_port_is_reported_or_skipped(unused_port: int) -> None:
    import socket

    with socket.socket() as taken:
        taken.bind(("127.0.0.1", unused_port))
        taken.listen()
        assert supervisor.is_listening("127.0.0.1", unused_port)
        with pytest.raises(supervisor.StartupError, match="--port"):
            supervisor.free_port("127.0.0.1", unused_port, try_next_ports=False, option="--port")
        assert supervisor.free_port("127.0.0.1", unused_port, try_next_ports=True, option="--port") > unused_port


@pytest.fixture
def unused_port() -> int:
    import socket

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
