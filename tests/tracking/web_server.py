"""The real web server as a process, and raw requests to it."""

import os
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).parents[2]


@contextmanager
def web_server(var: Path, port: int, **environment: str) -> Iterator[subprocess.Popen[bytes]]:
    """Run the web server as the supervisor starts it, until the end of the block."""
    from campaigns.cli.commands import web_command

    clean = {name: value for name, value in os.environ.items() if not name.endswith("_URL")}
    server_env = {**clean, "KAMPANIA_VAR": str(var), "PYTHONPATH": str(ROOT), **environment}
    with (var / "web.log").open("ab") as log:
        server = subprocess.Popen(
            web_command("127.0.0.1", port), cwd=ROOT, env=server_env, stdout=log, stderr=log, start_new_session=True
        )
    try:
        deadline = time.monotonic() + 100
        while raw_request(port, b"GET /o/x HTTP/1.0\r\n\r\n", 100)[0] != 200:
            assert time.monotonic() < deadline, (var / "web.log").read_text()
            assert server.poll() is None, (var / "web.log").read_text()
            time.sleep(0.1)
        yield server
    finally:
        kill_server(server)


def kill_server(server: subprocess.Popen[bytes]) -> None:
    """kill -9 the server and its workers."""
    try:
        os.killpg(server.pid, signal.SIGKILL)
    except ProcessLookupError:
        pass
    server.wait()


def raw_request(port: int, request: bytes, timeout: float = 60) -> tuple[int, bytes]:
    """Status and head of the response to raw bytes; status 0 when there was none."""
    received = b""
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=timeout) as connection:
            connection.sendall(request)
            while b"\r\n\r\n" not in received and (part := connection.recv(65_536)):
                received += part
    except ConnectionError:
        pass
    head = received.partition(b"\r\n\r\n")[0]
    return (int(head.split()[1]), head) if head.startswith(b"HTTP/") else (0, head)
