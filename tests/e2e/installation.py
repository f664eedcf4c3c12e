"""A running installation of real processes, with ports and a folder of its own."""

import os
import random
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from campaigns.mail_catcher.store import MailStore, StoredMail

ROOT = Path(__file__).parents[2]
_START_TIMEOUT = 120


@dataclass(frozen=True, slots=True)
class RunningInstallation:
    """Address and folder of a running installation, and its supervisor process."""

    base: str
    var: Path
    supervisor: subprocess.Popen[bytes]

    @property
    def port(self) -> int:
        return int(self.base.rsplit(":", 1)[1])

    @property
    def mail_store(self) -> MailStore:
        return MailStore(self.var / "catcher.db")

    def mails_to(self, address: str) -> list[StoredMail]:
        """Return the caught mails of one recipient, oldest first, with their raw bytes."""
        mails = [self.mail_store.mail(caught.id) for caught in reversed(self.mail_store.mails(address=address))]
        return [mail for mail in mails if mail is not None and mail.recipient == address]

    def logs(self) -> str:
        return "\n".join(f"== {path.name}\n{path.read_text()[-1500:]}" for path in (self.var / "log").glob("*.log"))


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def processes_of(var: Path) -> dict[int, str]:
    """Return command lines of processes whose command or environment names the folder, by pid; empty without /proc."""
    commands = {}
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            command = (entry / "cmdline").read_bytes()
            # Valkey overwrites its environment with its process title, which names the socket.
            if str(var).encode() in command + (entry / "environ").read_bytes():
                commands[int(entry.name)] = command.replace(b"\0", b" ").decode()
        except OSError:
            continue  # It has ended, or belongs to another user.
    return commands


def child_processes(installation: RunningInstallation) -> dict[int, str]:
    """Return the command lines of the supervisor's child processes, by pid."""

    def parent_of(pid: int) -> int:
        try:
            return int(Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[1])
        except OSError:
            return 0

    return {
        pid: command
        for pid, command in processes_of(installation.var).items()
        if parent_of(pid) == installation.supervisor.pid
    }


@contextmanager
def running_installation(
    var: Path, environment: Mapping[str, str], command: str = "up", *arguments: str
) -> Iterator[RunningInstallation]:
    """Start an installation, wait until it responds, and stop it with SIGINT; no process may remain."""
    port = free_port()
    environ = {name: value for name, value in os.environ.items() if not name.endswith("_URL")}
    var.mkdir(parents=True, exist_ok=True)
    with (var / "up.log").open("wb") as log:
        supervisor = subprocess.Popen(
            [
                sys.executable,
                "-m",
                "campaigns.cli",
                command,
                "--port",
                str(port),
                "--catcher-port",
                str(free_port()),
                *arguments,
            ],
            cwd=ROOT,
            env={
                **environ,
                "KAMPANIA_VAR": str(var),
                "TIME_SCALE": "60",
                "TRUSTED_PROXIES": "127.0.0.0/8",
                **environment,
            },
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    installation = RunningInstallation(f"http://127.0.0.1:{port}", var, supervisor)
    try:
        _wait_for_health(installation)
        yield installation
    finally:
        supervisor.send_signal(signal.SIGINT)
        try:
            supervisor.wait(120)
        except subprocess.TimeoutExpired:
            supervisor.kill()
            raise
    assert supervisor.returncode == 0, installation.logs()
    assert processes_of(var) == {}


def _wait_for_health(installation: RunningInstallation) -> None:
    deadline = time.monotonic() + _START_TIMEOUT
    while time.monotonic() < deadline:
        if installation.supervisor.poll() is not None:
            break
        try:
            urllib.request.urlopen(f"{installation.base}/health", timeout=10).close()
            return
        except urllib.error.HTTPError:
            return
        except OSError:
            time.sleep(0.1)
    raise AssertionError(
        f"the installation did not start:\n{(installation.var / 'up.log').read_text()}\n{installation.logs()}"
    )


def start_command(var: Path, *arguments: str, **environment: str) -> subprocess.Popen[str]:
    """Start a command on the folder; its output is piped."""
    environ = {name: value for name, value in os.environ.items() if not name.endswith("_URL")}
    return subprocess.Popen(
        [sys.executable, "-m", "campaigns.cli", *arguments],
        cwd=ROOT,
        env={**environ, "KAMPANIA_VAR": str(var), **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def interrupted_start(var: Path, seed: int) -> None:
    """Interrupt a start at a random moment; no process may remain."""
    rng = random.Random(seed)
    starting = start_command(var, "up", "--port", str(free_port()), "--catcher-port", str(free_port()))
    time.sleep(rng.uniform(0.2, 10 if seed else 2))
    starting.send_signal(signal.SIGINT if seed % 2 else signal.SIGTERM)
    out, _ = starting.communicate(timeout=120)
    assert "Traceback" not in out
    assert processes_of(var) == {}
