"""The two tasks that run every second.

They bundle several jobs: one message per job and second would keep an idle installation busy.
"""

import time
from collections.abc import Callable, Sequence

from workers import bounces, imports, maintenance, sending
from workers.celery import app

_MAX_SECONDS = 3.0
"""Seconds that a backlog may occupy a worker; the next tick continues."""
_DISPATCHERS = (sending.enqueue_due, imports.enqueue_due, maintenance.enqueue_due)
_BACKLOGS = (maintenance.finalise_labels, maintenance.record_conversions, bounces.process_backlog)
"""Each processes one batch and returns whether there may be more."""


@app.task  # type: ignore[untyped-decorator]
def dispatch_due() -> None:
    """Enqueue tasks for everything that is due."""
    run_jobs(_DISPATCHERS)


@app.task  # type: ignore[untyped-decorator]
def process_backlogs() -> None:
    """Finalise labels, record conversions, read bounces."""
    run_jobs(_BACKLOGS)


def run_jobs(jobs: Sequence[Callable[[], object]]) -> None:
    """Call each job once, then repeatedly those that return true, for ``_MAX_SECONDS`` at most.

    A job that raises is not called again; the others continue.

    Raises:
        ExceptionGroup: all exceptions, after the other jobs have run.
    """
    deadline, remaining, errors = time.monotonic() + _MAX_SECONDS, list(jobs), list[Exception]()
    while remaining:
        for job in list(remaining):
            try:
                if not job():
                    remaining.remove(job)
            except Exception as error:
                errors.append(error)
                remaining.remove(job)
        if time.monotonic() > deadline:
            break
    if errors:
        raise ExceptionGroup("some had no turn", errors)
