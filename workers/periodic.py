"""What is looked at every second, in two turns: a message of its own for each kept an idle house busy."""

import time
from collections.abc import Callable, Sequence

from workers import bounces, imports, maintenance, sending
from workers.celery import app

_AT_MOST = 3.0
"""Seconds that a backlog may keep a turn: others wait for its worker, and the next one goes on."""
_WAKING = (sending.wake, imports.wake, maintenance.wake)
_COUNTING = (maintenance.settle, maintenance.convert, bounces.read)
"""Each does one portion, and says whether there is more."""


@app.task  # type: ignore[untyped-decorator]
def wake() -> None:
    """Wake a worker for everything that is due."""
    take(_WAKING)


@app.task  # type: ignore[untyped-decorator]
def count() -> None:
    """Settle hits, convert submissions, read bounces."""
    take(_COUNTING)


def take(turns: Sequence[Callable[[], object]]) -> None:
    """Each once, then again those that have more, while time allows. One that fails keeps no other from its turn.

    Raises:
        ExceptionGroup: what failed, after the others had their turn.
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
