"""Tracking's and the journal's turns on the clock."""

from campaigns import db
from campaigns.delivery import journal
from tracking import conversions
from tracking import settle as settling
from workers.celery import app


@app.task  # type: ignore[untyped-decorator]
def settle() -> None:
    settling.settle_due()


@app.task  # type: ignore[untyped-decorator]
def convert() -> None:
    with db.transaction() as session:
        conversions.record_due(session)


@app.task  # type: ignore[untyped-decorator]
def sweep() -> None:
    journal.sweep()
