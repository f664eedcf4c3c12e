"""Schedule of the periodic tasks for Celery beat."""

from typing import Any


def _every(seconds: float, task: str) -> dict[str, Any]:
    # A wake-up older than its period is useless: the next one is in the queue already.
    return {"task": task, "schedule": seconds, "options": {"expires": max(seconds, 2.0)}}


SCHEDULE: dict[str, dict[str, Any]] = {
    "sends, imports and looks over the log that are due": _every(1, "workers.periodic.dispatch_due"),
    "hits, submissions and bounces to count": _every(1, "workers.periodic.process_backlogs"),
    "mailbox to look into": _every(60, "workers.bounces.poll_imap"),
    "bounces to forget": _every(3600, "workers.bounces.purge"),
    "journals to sweep": _every(3600, "workers.maintenance.clean_journals"),
    "sign-ins to forget": _every(900, "workers.maintenance.purge_expired"),
    "large tables to learn about": _every(6 * 3600, "workers.maintenance.analyze"),
    "uploads to sweep": _every(3600, "workers.imports.purge_uploads"),
}
