"""Uploaded files: each that waits is carried by a task."""

from campaigns import db, setbacks
from campaigns.audience import import_files, import_run
from campaigns.setbacks import JobType
from tracking import offline
from workers.celery import app


def wake() -> None:
    """Wake a worker for each import that waits."""
    with db.reading() as session:
        due = import_run.due_imports(session)
        reported = offline.due(session)
    for import_id in due:
        run.apply_async((import_id,), expires=60)
    for import_id in reported:
        run_offline.apply_async((import_id,), expires=60)


@app.task(acks_late=True, ignore_result=True)  # type: ignore[untyped-decorator]
def run(import_id: int) -> None:
    import_run.run(import_id)


@app.task(acks_late=True, ignore_result=True)  # type: ignore[untyped-decorator]
def run_offline(import_id: int) -> None:
    setbacks.alone(JobType.OFFLINE, import_id, lambda: offline.run(import_id))


@app.task(ignore_result=True)  # type: ignore[untyped-decorator]
def sweep() -> None:
    """Remove uploaded files whose time is over."""
    import_files.sweep()
