"""Tasks that expand audiences and send mails."""

from campaigns import retries
from campaigns.delivery.queue import expansion, scheduler
from campaigns.delivery.worker import worker as delivering
from campaigns.retries import JobType
from workers.celery import app, give_back

_SOON = 2
"""Seconds after which an unprocessed wake-up expires: by then the next tick has sent another."""


def wake() -> None:
    """Enqueue tasks for the activities that are due."""
    work = scheduler.find()
    for activity_id in work.expand:
        expand_audience.apply_async((activity_id,), expires=_SOON)
    for activity_id in work.deliver:
        queue = "transactional" if activity_id in work.urgent else "bulk"
        deliver.apply_async((activity_id,), expires=_SOON, queue=queue)


@app.task  # type: ignore[untyped-decorator]
def expand_audience(activity_id: int) -> None:
    retries.alone(JobType.EXPAND_AUDIENCE, activity_id, lambda: expansion.expand(activity_id))


@app.task  # type: ignore[untyped-decorator]
def deliver(activity_id: int) -> None:
    retries.alone(JobType.DELIVER, activity_id, lambda: delivering.deliver(activity_id))
    give_back()
