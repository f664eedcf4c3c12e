"""The Celery app: an engine that wakes up, never one that remembers.

Rows are the queue; a message only says "look now". Losing every message loses nothing, so there
are no results, and a tick that comes too late is dropped rather than piled up.
"""

import ctypes
import gc
import threading
from collections.abc import Iterable
from contextlib import suppress
from importlib import import_module
from typing import Any

from celery import Celery
from celery.signals import worker_process_init, worker_shutting_down
from kombu.asynchronous import get_event_loop

from campaigns import config, db
from workers.schedule import SCHEDULE

_TABLES_OF_SENDING = (
    "campaigns.accounts.models",
    "campaigns.audience.models",
    "campaigns.content.models",
    "campaigns.leads.models",
    "campaigns.capture.models",
    "campaigns.planning.models",
    "campaigns.delivery.models",
    "campaigns.delivery.sends.counters",
    "campaigns.delivery.bounces.models",
)
"""Every table that a send refers to, directly or through other tables."""
_SENDING = ("workers.sending",)
_IMPORTS = ("workers.imports", "workers.bounces")
QUEUES = {
    "clock": (*_SENDING, *_IMPORTS, "workers.maintenance", "workers.periodic"),
    "urgent": _SENDING,
    "sending": _SENDING,
    "imports": _IMPORTS,
}
"""Each with the tasks that come by it. Test and system mail is urgent; the house has a worker for it and for the
clock, so that no launch stands in its way."""

# Longer than any task, so that no task is handed out twice while it still runs.
_VISIBILITY = 900

_ARENA_MAX = -8  # M_ARENA_MAX of malloc.h
_CACHE = 1_000
"""KiB of the database that each of a worker's connections keeps: what it reads it seldom reads twice."""


def load(queues: Iterable[str] = QUEUES) -> None:
    """Import what the tasks of these queues stand on: a worker that only sends is smaller by 8 MB."""
    tasks = {name for queue in queues for name in QUEUES[queue]}
    if tasks <= {*_SENDING}:
        for name in _TABLES_OF_SENDING:
            import_module(name)
    else:
        import_module("tracking.registration").register_packages()
    for name in sorted(tasks):
        import_module(name)


def _conf() -> dict[str, Any]:
    settings = config.settings()
    return {
        "broker_url": settings.redis_url,
        "broker_connection_retry_on_startup": True,
        "broker_transport_options": {
            "visibility_timeout": _VISIBILITY,
            # Kombu by itself looks for lost tasks every 100 s, ten at a time.
            "unacked_restore_interval": 1,
            "unacked_restore_throttle": 1,
            "unacked_restore_limit": 1000,
            # redis-py gives up after 5 s by default, which a blocking pop may well outlast.
            "socket_timeout": None,
            "socket_keepalive": not settings.embedded_broker,
        },
        "accept_content": ["json"],
        "task_serializer": "json",
        "task_ignore_result": True,
        "task_acks_late": True,
        "worker_prefetch_multiplier": 1,
        "task_queues": {name: {"exchange": name, "routing_key": name} for name in QUEUES},
        "task_default_queue": "clock",
        "task_routes": {
            "workers.sending.deliver": "sending",
            "workers.sending.expand": "sending",
            "workers.imports.*": "imports",
            "workers.bounces.poll": "imports",  # Its server may be slow.
        },
        "enable_utc": True,
        "timezone": "UTC",
        "beat_schedule": SCHEDULE,
        "beat_schedule_filename": str(settings.var / "beat"),
        "beat_max_loop_interval": 1,
    }


app = Celery("kampania")
app.add_defaults(_conf)  # Asked when first needed: importing this file reads no environment.


def _share_arenas() -> None:
    """glibc gives each new thread memory of its own and keeps what was freed in each: a worker grew by 20 MB with
    its mails. Two for all are as fast, since threads take turns anyway."""
    with suppress(OSError, AttributeError):  # Another system's library may know no such thing.
        ctypes.CDLL(None).mallopt(_ARENA_MAX, 2)


def give_back() -> None:
    """Let the system have what is of no use any more: cycles first, since Python looks for them seldom (below), which
    made 4 MB in a launch of 200,000; then what glibc keeps by itself, 3 MB after a shift of mails."""
    gc.collect()
    with suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)


@worker_shutting_down.connect(weak=False)  # type: ignore[untyped-decorator]
def _end_at_once(**_: object) -> None:
    """A worker notices that it was asked to end when its loop next wakes, which may be in ten seconds. It is woken by
    a thread: here, in the midst of a signal, the loop's lock may be held by the very code that was interrupted."""
    loop = get_event_loop()
    if loop is not None:
        threading.Thread(target=loop.call_soon, args=(bool,), daemon=True).start()


@worker_process_init.connect(weak=False)  # type: ignore[untyped-decorator]
def _fresh_engine(**_: object) -> None:
    """A forked child must not talk through its parent's connections."""
    db.engine().dispose(close=False)
    # A worker has several connections, and with a large house in all of them it would grow by half.
    db.install(db.make_engine(config.settings().database_url, _CACHE))
    _share_arenas()
    give_back()  # What importing left behind.
    # What was imported lives for ever, and a slice makes thousands of objects without a cycle: look seldom.
    gc.freeze()
    gc.set_threshold(20_000, 20, 20)
