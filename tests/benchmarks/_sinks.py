"""SMTP sinks for benchmarks, and Postfix's smtp-source as a peer."""

import os
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from multiprocessing import Process, Queue
from pathlib import Path

from tests.benchmarks.smtp_client import serve


def find_program(name: str) -> str | None:
    """Return the path of a program; Postfix's are often not in a user's PATH."""
    return shutil.which(name) or shutil.which(name, path="/usr/sbin:/usr/local/sbin")


@contextmanager
def smtp_sink() -> Iterator[int]:
    """Run Postfix's smtp-sink; yields its port."""
    command = find_program("smtp-sink")
    assert command is not None
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    account = ["-u", "nobody"] if os.getuid() == 0 else []  # smtp-sink refuses to run as root.
    with subprocess.Popen([command, *account, f"127.0.0.1:{port}", "1024"]) as running:
        try:
            _until_open(port)
            yield port
        finally:
            running.terminate()


@contextmanager
def minimal_sink() -> Iterator[int]:
    """Compile and run our sink (``sink.c``); yields its port."""
    compiler = find_program("gcc")
    assert compiler is not None
    with tempfile.TemporaryDirectory() as home:
        executable = Path(home) / "sink"
        subprocess.run([compiler, "-O2", "-o", executable, Path(__file__).with_name("sink.c")], check=True)
        with subprocess.Popen([executable], stdout=subprocess.PIPE, text=True) as running:
            assert running.stdout is not None
            try:
                yield int(running.stdout.readline())
            finally:
                running.terminate()


@contextmanager
def distant_sink() -> Iterator[int]:
    """Run a sink with a round-trip time of 20 ms; yields its port."""
    ports: Queue[int] = Queue()
    running = Process(target=serve, args=(0.01, ports), daemon=True)
    running.start()
    try:
        yield ports.get()
    finally:
        running.terminate()
        running.join()


def run_smtp_source(port: int, mails: int, octets: int, connections: int) -> float:
    """Send mails with Postfix's smtp-source over reused connections; return mails per second."""
    command = find_program("smtp-source")
    assert command is not None
    options = ["-d", "-s", str(connections), "-m", str(mails), "-l", str(octets), "-t", "x@example.org"]
    began = time.perf_counter()
    subprocess.run([command, *options, f"127.0.0.1:{port}"], check=True)
    return mails / (time.perf_counter() - began)


def _until_open(port: int) -> None:
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        with suppress(OSError), socket.create_connection(("127.0.0.1", port)):
            return
        time.sleep(0.02)
    raise TimeoutError(f"nothing listens on {port}")
