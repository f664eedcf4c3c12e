"""Tracking's and the journal's turns on the clock."""

from campaigns.delivery import journal
from workers.celery import app


@app.task
def sweep() -> None:
    journal.sweep()
