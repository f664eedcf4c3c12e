"""The two tasks that run every second.

They bundle several jobs: one message per job and second would keep an idle installation busy.
"""

import time
from collections.abc import Callable, Sequence

from workers import bounces, imports, maintenance, sending
from workers.celery import app

_AT_MOST = 3.0
"""Seconds that a backlog may occupy a worker; the next tick continues."""
_WAKING = (sending.wake, imports.wake, maintenance.wake)
_COUNTING = (maintenance.settle, maintenance.convert, bounces.read)
"""Each processes one batch and returns whether there may be more."""


@app.task  # type: ignore[untyped-decorator]
def wake() -> None:
    """Enqueue tasks for everything that is due."""
    take(_WAKING)


@app.task  # type: ignore[untyped-decorator]
def count() -> None:
    """Finalise labels, record conversions, read bounces."""
    take(_COUNTING)


def take(turns: Sequence[Callable[[], object]]) -> None:
    """Call each job once, then repeatedly those that return true, for ``_MAX_SECONDS`` at most.

    A job that raises is not called again; the others continue.

    Raises:
        ExceptionGroup: all exceptions, after the other jobs have run.
    """
    until, left, errors = time.monotonic() + _AT_MOST, list(turns), list[Exception]()
    while left:
        for turn in list(left):
            try:
                if not turn():
                    left.remove(turn)
            except Exception as error:
                errors.append(error)
                left.remove(turn)
        if time.monotonic() > until:
            break
    if errors:
        raise ExceptionGroup("some had no turn", errors)
