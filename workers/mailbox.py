"""What comes back, on the clock."""

import time

from campaigns.delivery.bounces import arrivals, inbox, mailbox
from workers.celery import app

_AT_MOST = 3.0
"""Seconds that a backlog may keep a task: the next tick goes on."""


@app.task  # type: ignore[untyped-decorator]
def read() -> None:
    until = time.monotonic() + _AT_MOST
    while inbox.take_in() + arrivals.settle_due() and time.monotonic() < until:
        pass


@app.task  # type: ignore[untyped-decorator]
def poll() -> None:
    mailbox.poll()


@app.task  # type: ignore[untyped-decorator]
def forget() -> None:
    arrivals.forget_old()
