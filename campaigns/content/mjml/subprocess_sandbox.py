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

PATIENCE = 10.0
"""Seconds that the parent waits for a response."""
CPU_SECONDS = 5
MEMORY = 512 * 1024 * 1024
LARGEST_ANSWER = 8 * 1024 * 1024
_MOST_CHILDREN = 2
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

    def ask(self, question: bytes, patience: float) -> bytes | None:
        """Return the response, or None when the child died or exceeded the timeout; then it must be closed."""
        stdin, stdout = self.process.stdin, self.process.stdout
        assert stdin is not None
        assert stdout is not None
        try:
            stdin.write(len(question).to_bytes(4) + question)
            stdin.flush()
        except OSError:
            return None
        deadline = time.monotonic() + patience
        waiting = select.poll()  # select() is limited to file descriptors below 1024
        waiting.register(stdout, select.POLLIN)
        answer = b""
        length = None
        while length is None or len(answer) < length:
            ready = waiting.poll(max(0.0, deadline - time.monotonic()) * 1000)
            chunk = os.read(stdout.fileno(), 65536) if ready else b""
            if not chunk:
                return None
            answer += chunk
            if length is None and len(answer) >= 4:
                length = int.from_bytes(answer[:4])
                answer = answer[4:]
                if length > LARGEST_ANSWER:
                    return None
        return answer

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
        self._turns = threading.BoundedSemaphore(_MOST_CHILDREN)
        self._lock = threading.Lock()
        self._idle: list[SandboxProcess] = []

    def ask(self, question: Mapping[str, Any], patience: float = PATIENCE) -> Any:
        """Return a child's response. Raises ValidationFailed when the template breaks it or exceeds its limits."""
        body = json.dumps(question, ensure_ascii=True).encode()
        with self._turns:
            with self._lock:
                chamber = self._idle.pop() if self._idle else None
            answer = None
            if chamber is not None and chamber.process.poll() is None:
                answer = chamber.ask(body, patience)
            elif chamber is not None:
                chamber.close()
                chamber = None
            if chamber is None:
                chamber = SandboxProcess()
                answer = chamber.ask(body, patience)
            if answer is None:
                chamber.close()
                raise ValidationFailed(
                    ValidationProblem(N_("This message takes too much time or memory to render."), "mjml")
                )
            with self._lock:
                self._idle.append(chamber)
        found = json.loads(answer)
        if "refused" in found:
            raise ValidationFailed(ValidationProblem(found["refused"], "mjml"))
        return found["answer"]

    def close(self) -> None:
        with self._lock:
            idle, self._idle = self._idle, []
        for chamber in idle:
            chamber.close()


_chambers = SandboxPool()


def _after_fork() -> None:
    """Close the inherited pipes after a fork: the children belong to the parent process."""
    global _chambers
    for chamber in _chambers._idle:
        for pipe in (chamber.process.stdin, chamber.process.stdout):
            if pipe is not None:
                with contextlib.suppress(OSError):
                    pipe.close()
        chamber.process.returncode = 0  # not our child process: there is nothing to wait for
    _chambers = SandboxPool()


os.register_at_fork(after_in_child=_after_fork)
atexit.register(lambda: _chambers.close())


def ask(question: Mapping[str, Any], patience: float = PATIENCE) -> Any:
    """Run a request in a child process; see :func:`handle_request` for the requests."""
    return _chambers.ask(question, patience)


# Code that runs in the child process


def answer(question: Mapping[str, Any]) -> Any:
    """Handle a request: ``build`` compiles a draft and merges it once, ``merge`` renders a template."""
    from campaigns.content.mjml import compiler
    from campaigns.content.rendering import jinja_sandbox

    if question["question"] == "merge":
        return jinja_sandbox.fill(jinja_sandbox.HTML.from_string(question["template"]), question["names"])
    built = compiler.build(compiler.MessageDraft(**question["draft"]), question["known"], question["hosts"])
    first = compiler.merge_once(built, question["names"])
    return {"built": dataclasses.asdict(built), "size": first}


def _limit() -> None:
    usage = resource.getrusage(resource.RUSAGE_SELF)
    used = int(usage.ru_utime + usage.ru_stime) + CPU_SECONDS
    with contextlib.suppress(ValueError, OSError):  # macOS does not support every limit
        resource.setrlimit(resource.RLIMIT_CPU, (used, resource.RLIM_INFINITY))


def main() -> None:
    """Handle requests from standard input until it is closed."""
    for limit, value in (
        (resource.RLIMIT_AS, MEMORY),
        (resource.RLIMIT_CORE, 0),
        (resource.RLIMIT_FSIZE, 0),
        (resource.RLIMIT_NOFILE, 64),
    ):
        with contextlib.suppress(ValueError, OSError):
            resource.setrlimit(limit, (value, value))
    stdin, stdout = sys.stdin.buffer, sys.stdout.buffer
    while head := stdin.read(4):
        _limit()
        body = stdin.read(int.from_bytes(head))
        try:
            found = {"answer": answer(json.loads(body))}
        except ValidationFailed as error:
            found = {"refused": error.problems[0].message}
        except MemoryError:
            found = {"refused": N_("This message takes too much time or memory to render.")}
        except Exception:
            found = {"refused": N_("This message cannot be rendered.")}
        reply = json.dumps(found, ensure_ascii=True).encode()
        stdout.write(len(reply).to_bytes(4) + reply)
        stdout.flush()


if __name__ == "__main__":
    main()
