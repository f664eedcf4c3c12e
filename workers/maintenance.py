"""Tasks for final labels, conversions, maintenance runs and the purge of expired rows."""

from campaigns import db, retries
from campaigns.accounts import authentication
from campaigns.delivery.queue import journal
from campaigns.retries import JobType
from tracking.bots import final_labels as settling
from tracking.bots.bursts import BurstCache
from tracking.conversions import goal_matching
from tracking.jobs import lead_conversions, maintenance_runs, visit_linking
from workers.celery import app

_HITS, _SUBMISSIONS = 2_000, 500
"""Batch sizes. After a full batch there may be more rows."""


def settle() -> bool:
    """Give hits their final label once their settle window is over. Returns whether there may be more."""
    global _crowds
    more = settling.settle_due(_HITS, _crowds) >= _HITS
    if not more:
        _crowds = BurstCache()
    return more


_crowds = BurstCache()
"""Bursts found by consecutive batches, which overlap; replaced after the last batch."""


def convert() -> bool:
    """Record the conversions of new submissions. Returns whether there may be more."""
    with db.transaction() as session:
        found = max(
            # First, so that conversions know the visits that they came by.
            visit_linking.join_due(session, _SUBMISSIONS),
            lead_conversions.record_due(session, _SUBMISSIONS),
            goal_matching.notice_due(session, _SUBMISSIONS),
            lead_conversions.recredit_due(session, _SUBMISSIONS),
        )
    return found >= _SUBMISSIONS


def wake() -> None:
    """Enqueue a task for each maintenance run that an owner ordered."""
    with db.reading() as session:
        due = maintenance_runs.due(session)
    for inspection_id in due:
        inspect.apply_async((inspection_id,), expires=60)


@app.task(acks_late=True, ignore_result=True)  # type: ignore[untyped-decorator]
def inspect(inspection_id: int) -> None:
    retries.alone(JobType.RUN_MAINTENANCE, inspection_id, lambda: maintenance_runs.run(inspection_id))


@app.task  # type: ignore[untyped-decorator]
def sweep() -> None:
    journal.sweep()


@app.task  # type: ignore[untyped-decorator]
def forget() -> None:
    with db.transaction() as session:
        authentication.forget_old(session)
        retries.forget_old(session)
        visit_linking.forget_old(session)


@app.task  # type: ignore[untyped-decorator]
def learn() -> None:
    db.learn()
