"""Tracking's and the journal's turns on the clock."""

from campaigns import db, setbacks
from campaigns.accounts import signing_in
from campaigns.delivery import journal
from campaigns.setbacks import JobType
from tracking import conversions, inspections, joining, reaching
from tracking import settle as settling
from tracking.crowding import BurstCache
from workers.celery import app

_HITS, _SUBMISSIONS = 2_000, 500
"""How many make a full portion; after one there may be more."""


def settle() -> bool:
    """Label hits whose time has come. Whether there may be more."""
    global _crowds
    more = settling.settle_due(_HITS, _crowds) >= _HITS
    if not more:
        _crowds = BurstCache()
    return more


_crowds = BurstCache()
"""Found while there are portions that follow one another; what comes later is looked for anew."""


def convert() -> bool:
    """Count what submissions brought. Whether there may be more."""
    with db.transaction() as session:
        found = max(
            joining.join_due(session, _SUBMISSIONS),  # First, so that conversions find whose visits they came by.
            conversions.record_due(session, _SUBMISSIONS),
            reaching.notice_due(session, _SUBMISSIONS),
            conversions.recredit_due(session, _SUBMISSIONS),
        )
    return found >= _SUBMISSIONS


def wake() -> None:
    """Wake a worker for the look over the log that an owner ordered."""
    with db.reading() as session:
        due = inspections.due(session)
    for inspection_id in due:
        inspect.apply_async((inspection_id,), expires=60)


@app.task(acks_late=True, ignore_result=True)  # type: ignore[untyped-decorator]
def inspect(inspection_id: int) -> None:
    setbacks.alone(JobType.INSPECT, inspection_id, lambda: inspections.run(inspection_id))


@app.task  # type: ignore[untyped-decorator]
def sweep() -> None:
    journal.sweep()


@app.task  # type: ignore[untyped-decorator]
def forget() -> None:
    with db.transaction() as session:
        signing_in.forget_old(session)
        setbacks.forget_old(session)
        joining.forget_old(session)


@app.task  # type: ignore[untyped-decorator]
def learn() -> None:
    db.learn()
