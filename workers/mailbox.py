"""What comes back, on the clock."""

from campaigns.delivery.bounces import arrivals, inbox, mailbox
from workers.celery import app


def read() -> bool:
    """Take in what came back. Whether there may be more."""
    return inbox.take_in() + arrivals.settle_due() > 0


@app.task  # type: ignore[untyped-decorator]
def poll() -> None:
    mailbox.poll()


@app.task  # type: ignore[untyped-decorator]
def forget() -> None:
    arrivals.forget_old()
