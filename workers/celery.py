"""The Celery app. The broker carries wake-ups only.

Rows are the queue; a message only says that there may be due rows. Losing every message loses nothing, so there are
no results, and a late tick is dropped instead of queued.
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

_SENDING_MODELS = (
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
"""Modules of every table that a send refers to, directly or through other tables."""
_SENDING = ("workers.sending",)
_IMPORTS = ("workers.imports", "workers.bounces")
QUEUES = {
    "default": (*_SENDING, *_IMPORTS, "workers.maintenance", "workers.periodic"),
    "transactional": _SENDING,
    "bulk": _SENDING,
    "imports": _IMPORTS,
}
"""The task modules of each queue. Test and system mail goes through ``transactional``: one worker serves only that
queue and ``default``, so that a launch never delays it."""

# Seconds; longer than any task, so that the broker delivers no task twice while it still runs.
_VISIBILITY_TIMEOUT = 900

_M_ARENA_MAX = -8  # M_ARENA_MAX of malloc.h
_SQLITE_CACHE_KIB = 1_000
"""KiB of the database file that each of a worker's connections caches: workers seldom read the same page twice."""


def import_tasks(queues: Iterable[str] = QUEUES) -> None:
    """Import the task modules of these queues; a worker that only sends skips the other packages to save memory."""
    tasks = {name for queue in queues for name in QUEUES[queue]}
    if tasks <= {*_SENDING}:
        for name in _SENDING_MODELS:
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
            "visibility_timeout": _VISIBILITY_TIMEOUT,
            # Kombu's default looks for lost tasks every 100 s, ten at a time.
            "unacked_restore_interval": 1,
            "unacked_restore_throttle": 1,
            "unacked_restore_limit": 1000,
            # redis-py's default timeout is 5 s, and a blocking pop may take longer.
            "socket_timeout": None,
            "socket_keepalive": not settings.embedded_broker,
        },
        "accept_content": ["json"],
        "task_serializer": "json",
        "task_ignore_result": True,
        "task_acks_late": True,
        "worker_prefetch_multiplier": 1,
        "task_queues": {name: {"exchange": name, "routing_key": name} for name in QUEUES},
        "task_default_queue": "default",
        "task_routes": {
            "workers.sending.deliver": "bulk",
            "workers.sending.expand_audience": "bulk",
            "workers.imports.*": "imports",
            "workers.bounces.poll_imap": "imports",  # The IMAP server may be slow.
        },
        "enable_utc": True,
        "timezone": "UTC",
        "beat_schedule": SCHEDULE,
        "beat_schedule_filename": str(settings.var / "beat"),
        "beat_max_loop_interval": 1,
    }


app = Celery("kampania")
app.add_defaults(_conf)  # Evaluated lazily: importing this module reads no environment.


def _limit_malloc_arenas() -> None:
    """Limit glibc to two malloc arenas.

    By default glibc gives each thread an arena and keeps freed memory in each of them. Two don't slow the threads down,
    since only one of them holds the GIL. ``tests/benchmarks/pipeline.py`` shows a worker's memory.
    """
    with suppress(OSError, AttributeError):  # Another C library may lack the function.
        ctypes.CDLL(None).mallopt(_M_ARENA_MAX, 2)


def release_memory() -> None:
    """Return unused memory to the operating system.

    Collects cycles first, because the collector runs seldom here (see :func:`_init_child_process`), then trims glibc's
    free lists. ``tests/benchmarks/pipeline.py`` shows a worker's memory.
    """
    gc.collect()
    with suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)


@worker_shutting_down.connect(weak=False)  # type: ignore[untyped-decorator]
def _wake_event_loop(**_: object) -> None:
    """Wake the event loop when the worker is asked to shut down, since it may sleep for ten seconds.

    Runs in a thread: in the signal handler the loop's lock may be held by the interrupted code itself.
    """
    loop = get_event_loop()
    if loop is not None:
        threading.Thread(target=loop.call_soon, args=(bool,), daemon=True).start()


@worker_process_init.connect(weak=False)  # type: ignore[untyped-decorator]
def _init_child_process(**_: object) -> None:
    """Give a forked child its own engine: it must not use its parent's connections."""
    db.engine().dispose(close=False)
    # A worker has several connections; with the default cache size each would hold up to 16 MB of the database.
    db.set_engine(db.make_engine(config.settings().database_url, _SQLITE_CACHE_KIB))
    _limit_malloc_arenas()
    release_memory()  # Frees what the imports left behind.
    # Imported objects live as long as the process, and a batch creates thousands of objects without cycles, so the
    # collector can skip the former and run seldom.
    gc.freeze()
    gc.set_threshold(20_000, 20, 20)
