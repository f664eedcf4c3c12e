"""Command lines of the installation's processes, shared by the supervisor and the single-process commands."""

import os
import sys
from pathlib import Path
from typing import NoReturn

from campaigns import config

ROOT = Path(__file__).resolve().parents[2]


def python_command(module: str, *arguments: str) -> list[str]:
    """Command line of ``python -m module``."""
    return [sys.executable, "-m", module, *arguments]


def web_command(host: str, port: int, threads: int = 4) -> list[str]:
    options = ["--interface", "wsgi", "--host", host, "--port", str(port), "--workers", "1", "--no-ws", "--http", "1"]
    options += ["--blocking-threads", str(threads), "--respawn-failed-workers", "--workers-kill-timeout", "5"]
    return python_command("campaigns.web.wsgi_server", *options, "wsgi:application")


def worker_command(concurrency: int = 2, queues: str | None = None, name: str = "worker") -> list[str]:
    options = ["--hostname", f"{name}@%h", "--concurrency", str(concurrency)]
    return python_command("workers", *options, *(["--queues", queues] if queues else []))


def beat_command() -> list[str]:
    schedule = str(config.settings().var / "beat")
    return python_command(
        "celery", "-A", "workers.celery", "beat", "--schedule", schedule, "--pidfile", "", "--loglevel", "WARNING"
    )


def exec_command(command: list[str]) -> NoReturn:
    """Replace this process by ``command`` (exec); the repository is put on its PYTHONPATH."""
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH"))))
    os.execv(command[0], command)  # noqa: S606
