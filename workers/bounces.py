"""Tasks for bounces and complaints."""

from campaigns.delivery.bounces.intake import imap, maildir, queue
from workers.celery import app


def read() -> bool:
    """Read the inbound messages that wait. Returns whether there may be more."""
    return maildir.take_in() + queue.settle_due() > 0


@app.task  # type: ignore[untyped-decorator]
def poll() -> None:
    imap.poll()


@app.task  # type: ignore[untyped-decorator]
def forget() -> None:
    queue.forget_old()
