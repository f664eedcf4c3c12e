"""Tasks that run uploaded imports of contacts and of offline conversions."""

from campaigns import db, retries
from campaigns.audience.imports import files, runner
from campaigns.retries import JobType
from tracking.conversions import offline_import
from workers.celery import app


def wake() -> None:
    """Enqueue a task for each import that waits."""
    with db.reading() as session:
        due = runner.due_imports(session)
        reported = offline_import.due(session)
    for import_id in due:
        run.apply_async((import_id,), expires=60)
    for import_id in reported:
        run_offline.apply_async((import_id,), expires=60)


@app.task(acks_late=True, ignore_result=True)  # type: ignore[untyped-decorator]
def run(import_id: int) -> None:
    runner.run(import_id)


@app.task(acks_late=True, ignore_result=True)  # type: ignore[untyped-decorator]
def run_offline(import_id: int) -> None:
    retries.alone(JobType.IMPORT_CONVERSIONS, import_id, lambda: offline_import.run(import_id))


@app.task(ignore_result=True)  # type: ignore[untyped-decorator]
def sweep() -> None:
    """Delete uploaded files whose retention time is over."""
    files.sweep()
