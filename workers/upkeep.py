"""Tracking's and the journal's turns on the clock."""

import time
from collections.abc import Callable

from campaigns import db, setbacks
from campaigns.accounts import signing_in
from campaigns.delivery import journal
from campaigns.setbacks import Chore
from tracking import conversions, inspections, joining, reaching
from tracking import settle as settling
from workers.celery import app

_AT_MOST = 3.0
"""Seconds that a backlog may keep a task: others wait for its worker, and the next tick goes on."""
_HITS, _SUBMISSIONS = 2_000, 500


@app.task  # type: ignore[untyped-decorator]
def settle() -> None:
    _portions(lambda: settling.settle_due(_HITS), _HITS)


@app.task  # type: ignore[untyped-decorator]
def convert() -> None:
    _portions(lambda: _converted(_SUBMISSIONS), _SUBMISSIONS)


def _converted(limit: int) -> int:
    with db.transaction() as session:
        return max(
            joining.join_due(session, limit),  # First, so that conversions find whose visits they came by.
            conversions.record_due(session, limit),
            reaching.notice_due(session, limit),
            conversions.recredit_due(session, limit),
        )


def _portions(portion: Callable[[], int], full: int) -> None:
    """One portion after the other, each its own transaction, while they are full and time allows."""
    until = time.monotonic() + _AT_MOST
    while portion() >= full and time.monotonic() < until:
        pass


@app.task  # type: ignore[untyped-decorator]
def look() -> None:
    """Wake a worker for the look over the log that an owner ordered."""
    with db.reading() as session:
        due = inspections.due(session)
    for inspection_id in due:
        inspect.apply_async((inspection_id,), expires=60)


@app.task(acks_late=True, ignore_result=True)  # type: ignore[untyped-decorator]
def inspect(inspection_id: int) -> None:
    setbacks.alone(Chore.INSPECT, inspection_id, lambda: inspections.run(inspection_id))


@app.task  # type: ignore[untyped-decorator]
def sweep() -> None:
    journal.sweep()


@app.task  # type: ignore[untyped-decorator]
def forget() -> None:
    with db.transaction() as session:
        signing_in.forget_old(session)
        setbacks.forget_old(session)
        joining.forget_old(session)
