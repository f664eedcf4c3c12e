"""Sandbox process: child processes that compile coordinators' templates and merge them for the first time.

MRML can crash its process, and a template can use any amount of memory and time. A child has limits for both and
no access to settings or secrets; the parent waits at most :data:`TIMEOUT` seconds. Children are reused, because
starting one means starting Python. They are new programs, not forks, so they are safe beside threads and inside
Celery's prefork processes. Messages are JSON with a 4-byte length prefix.
"""

import atexit
import contextlib
import dataclasses
import json
import os
import resource
import select
import subprocess
import sys
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from campaigns.errors import ValidationFailed, ValidationProblem
from campaigns.i18n import N_

TIMEOUT = 10.0
"""Seconds that the parent waits for a response."""
CPU_SECONDS = 5
MEMORY_BYTES = 512 * 1024 * 1024
MAX_RESPONSE_BYTES = 8 * 1024 * 1024
_MAX_CHILDREN = 2
_ROOT = Path(__file__).resolve().parents[3]


class SandboxProcess:
    """One child process and the pipes to it."""

    def __init__(self) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-s", "-m", "campaigns.content.mjml.subprocess_sandbox"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            cwd=_ROOT,
            env={"PYTHONPATH": str(_ROOT), "PYTHONUTF8": "1", "PATH": os.defpath},
            start_new_session=True,  # Ctrl-C signals the process group: the parent handles it and ends its children
        )

    def send(self, request: bytes, timeout: float) -> bytes | None:
        """Return the response, or None when the child died or exceeded the timeout; then it must be closed."""
        stdin, stdout = self.process.stdin, self.process.stdout
        assert stdin is not None
        assert stdout is not None
        try:
            stdin.write(len(request).to_bytes(4) + request)
            stdin.flush()
        except OSError:
            return None
        deadline = time.monotonic() + timeout
        poller = select.poll()  # select() is limited to file descriptors below 1024
        poller.register(stdout, select.POLLIN)
        response = b""
        length = None
        while length is None or len(response) < length:
            ready = poller.poll(max(0.0, deadline - time.monotonic()) * 1000)
            chunk = os.read(stdout.fileno(), 65536) if ready else b""
            if not chunk:
                return None
            response += chunk
            if length is None and len(response) >= 4:
                length = int.from_bytes(response[:4])
                response = response[4:]
                if length > MAX_RESPONSE_BYTES:
                    return None
        return response

    def close(self) -> None:
        self.process.kill()
        for pipe in (self.process.stdin, self.process.stdout):
            if pipe is not None:
                with contextlib.suppress(OSError):
                    pipe.close()
        self.process.wait()


class SandboxPool:
    """A few reusable children; each is used by one thread at a time."""

    def __init__(self) -> None:
        self._slots = threading.BoundedSemaphore(_MAX_CHILDREN)
        self._lock = threading.Lock()
        self._idle: list[SandboxProcess] = []

    def run(self, request: Mapping[str, Any], timeout: float = TIMEOUT) -> Any:
        """Return a child's response. Raises ValidationFailed when the template breaks it or exceeds its limits."""
        body = json.dumps(request, ensure_ascii=True).encode()
        with self._slots:
            with self._lock:
                child = self._idle.pop() if self._idle else None
            response = None
            if child is not None and child.process.poll() is None:
                response = child.send(body, timeout)
            elif child is not None:
                child.close()
                child = None
            if child is None:
                child = SandboxProcess()
                response = child.send(body, timeout)
            if response is None:
                child.close()
                raise ValidationFailed(
                    ValidationProblem(N_("This message takes too much time or memory to render."), "mjml")
                )
            with self._lock:
                self._idle.append(child)
        result = json.loads(response)
        if "refused" in result:
            raise ValidationFailed(ValidationProblem(result["refused"], "mjml"))
        return result["answer"]

    def close(self) -> None:
        with self._lock:
            idle, self._idle = self._idle, []
        for child in idle:
            child.close()


_pool = SandboxPool()


def _reset_after_fork() -> None:
    """Close the inherited pipes after a fork: the children belong to the parent process."""
    global _pool
    for child in _pool._idle:
        for pipe in (child.process.stdin, child.process.stdout):
            if pipe is not None:
                with contextlib.suppress(OSError):
                    pipe.close()
        child.process.returncode = 0  # not our child process: there is nothing to wait for
    _pool = SandboxPool()


os.register_at_fork(after_in_child=_reset_after_fork)
atexit.register(lambda: _pool.close())


def run_in_sandbox(request: Mapping[str, Any], timeout: float = TIMEOUT) -> Any:
    """Run a request in a child process; see :func:`handle_request` for the requests."""
    return _pool.run(request, timeout)


# Code that runs in the child process


def handle_request(request: Mapping[str, Any]) -> Any:
    """Handle a request: ``build`` compiles a draft and merges it once, ``merge`` renders a template."""
    from campaigns.content.mjml import compiler
    from campaigns.content.rendering import jinja_sandbox

    if request["question"] == "merge":
        return jinja_sandbox.render_limited(
            jinja_sandbox.HTML_ENVIRONMENT.from_string(request["template"]), request["names"]
        )
    compiled = compiler.compile_draft(compiler.MessageDraft(**request["draft"]), request["known"], request["hosts"])
    size = compiler.check_size(compiled, request["names"])
    return {"built": dataclasses.asdict(compiled), "size": size}


def _limit_cpu_time() -> None:
    usage = resource.getrusage(resource.RUSAGE_SELF)
    used = int(usage.ru_utime + usage.ru_stime) + CPU_SECONDS
    with contextlib.suppress(ValueError, OSError):  # macOS does not support every limit
        resource.setrlimit(resource.RLIMIT_CPU, (used, resource.RLIM_INFINITY))


def main() -> None:
    """Handle requests from standard input until it is closed."""
    for limit, value in (
        (resource.RLIMIT_AS, MEMORY_BYTES),
        (resource.RLIMIT_CORE, 0),
        (resource.RLIMIT_FSIZE, 0),
        (resource.RLIMIT_NOFILE, 64),
    ):
        with contextlib.suppress(ValueError, OSError):
            resource.setrlimit(limit, (value, value))
    stdin, stdout = sys.stdin.buffer, sys.stdout.buffer
    while length_prefix := stdin.read(4):
        _limit_cpu_time()
        body = stdin.read(int.from_bytes(length_prefix))
        try:
            result = {"answer": handle_request(json.loads(body))}
        except ValidationFailed as error:
            result = {"refused": error.problems[0].message}
        except MemoryError:
            result = {"refused": N_("This message takes too much time or memory to render.")}
        except Exception:
            result = {"refused": N_("This message cannot be rendered.")}
        response = json.dumps(result, ensure_ascii=True).encode()
        stdout.write(len(response).to_bytes(4) + response)
        stdout.flush()


if __name__ == "__main__":
    main()
