"""Tasks for bounces and complaints."""

from campaigns.delivery.bounces.intake import imap, maildir, queue
from workers.celery import app


def process_backlog() -> bool:
    """Read the inbound messages that wait. Returns whether there may be more."""
    return maildir.move_to_queue() + queue.process_due() > 0


@app.task  # type: ignore[untyped-decorator]
def poll_imap() -> None:
    imap.poll()


@app.task  # type: ignore[untyped-decorator]
def purge() -> None:
    queue.delete_old()
