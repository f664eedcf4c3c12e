"""Tasks that expand audiences and send mails."""

from campaigns import retries
from campaigns.delivery.queue import expansion, scheduler
from campaigns.delivery.worker import worker as delivering
from campaigns.retries import JobType
from workers.celery import app, release_memory

_WAKE_UP_EXPIRY = 2
"""Seconds after which an unprocessed wake-up expires: by then the next tick has sent another."""


def enqueue_due() -> None:
    """Enqueue tasks for the activities that are due."""
    due = scheduler.find_due_work()
    for activity_id in due.expand:
        expand_audience.apply_async((activity_id,), expires=_WAKE_UP_EXPIRY)
    for activity_id in due.deliver:
        queue = "transactional" if activity_id in due.urgent else "bulk"
        deliver.apply_async((activity_id,), expires=_WAKE_UP_EXPIRY, queue=queue)


@app.task  # type: ignore[untyped-decorator]
def expand_audience(activity_id: int) -> None:
    retries.run_one(JobType.EXPAND_AUDIENCE, activity_id, lambda: expansion.expand(activity_id))


@app.task  # type: ignore[untyped-decorator]
def deliver(activity_id: int) -> None:
    retries.run_one(JobType.DELIVER, activity_id, lambda: delivering.deliver(activity_id))
    release_memory()
