"""What runs when, on one screen."""

from typing import Any


def _every(seconds: float, task: str) -> dict[str, Any]:
    # A wake-up that waited longer than its period is worth nothing: the next one is there already.
    return {"task": task, "schedule": seconds, "options": {"expires": max(seconds, 2.0)}}


SCHEDULE: dict[str, dict[str, Any]] = {
    "sends that are due": _every(1, "workers.sending.tick"),
    "imports that wait": _every(1, "workers.imports.tick"),
    "hits to settle": _every(1, "workers.upkeep.settle"),
    "submissions to convert": _every(1, "workers.upkeep.convert"),
    "bounces to read": _every(1, "workers.mailbox.read"),
    "mailbox to look into": _every(60, "workers.mailbox.poll"),
    "bounces to forget": _every(3600, "workers.mailbox.forget"),
    "log to look over": _every(2, "workers.upkeep.look"),
    "journals to sweep": _every(3600, "workers.upkeep.sweep"),
    "sign-ins to forget": _every(900, "workers.upkeep.forget"),
    "uploads to sweep": _every(3600, "workers.imports.sweep"),
}
