"""Tasks for final labels, conversions, maintenance runs and the purge of expired rows."""

from campaigns import db, retries
from campaigns.accounts import authentication
from campaigns.delivery.queue import journal
from campaigns.retries import JobType
from tracking.bots import final_labels
from tracking.bots.bursts import BurstCache
from tracking.conversions import goal_matching
from tracking.jobs import lead_conversions, maintenance_runs, visit_linking
from workers.celery import app

_HIT_BATCH, _SUBMISSION_BATCH = 2_000, 500
"""Batch sizes. After a full batch there may be more rows."""


def finalise_labels() -> bool:
    """Give hits their final label once their settle window is over. Returns whether there may be more."""
    global _burst_cache
    more = final_labels.settle_due(_HIT_BATCH, _burst_cache) >= _HIT_BATCH
    if not more:
        _burst_cache = BurstCache()
    return more


_burst_cache = BurstCache()
"""Bursts found by consecutive batches, which overlap; replaced after the last batch."""


def record_conversions() -> bool:
    """Record the conversions of new submissions. Returns whether there may be more."""
    with db.transaction() as session:
        handled = max(
            # First, so that conversions know the visits that they came by.
            visit_linking.link_due(session, _SUBMISSION_BATCH),
            lead_conversions.record_due(session, _SUBMISSION_BATCH),
            goal_matching.match_due(session, _SUBMISSION_BATCH),
            lead_conversions.recredit_due(session, _SUBMISSION_BATCH),
        )
    return handled >= _SUBMISSION_BATCH


def enqueue_due() -> None:
    """Enqueue a task for each maintenance run that an owner ordered."""
    with db.read_only_session() as session:
        due = maintenance_runs.due_run_ids(session)
    for run_id in due:
        run_maintenance.apply_async((run_id,), expires=60)


@app.task(acks_late=True, ignore_result=True)  # type: ignore[untyped-decorator]
def run_maintenance(run_id: int) -> None:
    retries.run_one(JobType.RUN_MAINTENANCE, run_id, lambda: maintenance_runs.run(run_id))


@app.task  # type: ignore[untyped-decorator]
def clean_journals() -> None:
    journal.delete_stale_drafts()


@app.task  # type: ignore[untyped-decorator]
def purge_expired() -> None:
    with db.transaction() as session:
        authentication.purge_expired(session)
        retries.purge_expired(session)
        visit_linking.delete_old_form_views(session)


@app.task  # type: ignore[untyped-decorator]
def analyze() -> None:
    db.analyze_large_tables()
