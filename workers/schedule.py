"""Schedule of the periodic tasks for Celery beat."""

from typing import Any


def _every(seconds: float, task: str) -> dict[str, Any]:
    # A wake-up older than its period is useless: the next one is in the queue already.
    return {"task": task, "schedule": seconds, "options": {"expires": max(seconds, 2.0)}}


SCHEDULE: dict[str, dict[str, Any]] = {
    "sends, imports and looks over the log that are due": _every(1, "workers.periodic.wake"),
    "hits, submissions and bounces to count": _every(1, "workers.periodic.count"),
    "mailbox to look into": _every(60, "workers.bounces.poll"),
    "bounces to forget": _every(3600, "workers.bounces.forget"),
    "journals to sweep": _every(3600, "workers.maintenance.sweep"),
    "sign-ins to forget": _every(900, "workers.maintenance.forget"),
    "large tables to learn about": _every(6 * 3600, "workers.maintenance.learn"),
    "uploads to sweep": _every(3600, "workers.imports.sweep"),
}
