"""What comes back, on the clock."""

from campaigns.delivery.bounces.intake import imap, maildir, queue
from workers.celery import app


def read() -> bool:
    """Take in what came back. Whether there may be more."""
    return maildir.take_in() + queue.settle_due() > 0


@app.task  # type: ignore[untyped-decorator]
def poll() -> None:
    imap.poll()


@app.task  # type: ignore[untyped-decorator]
def forget() -> None:
    queue.forget_old()
