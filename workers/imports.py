"""Tasks that run uploaded imports of contacts and of offline conversions."""

from campaigns import db, retries
from campaigns.audience.imports import files, runner
from campaigns.retries import JobType
from tracking.conversions import offline_import
from workers.celery import app


def enqueue_due() -> None:
    """Enqueue a task for each import that waits."""
    with db.read_only_session() as session:
        due = runner.due_imports(session)
        offline = offline_import.due_import_ids(session)
    for import_id in due:
        run_contacts.apply_async((import_id,), expires=60)
    for import_id in offline:
        run_offline.apply_async((import_id,), expires=60)


@app.task(acks_late=True, ignore_result=True)  # type: ignore[untyped-decorator]
def run_contacts(import_id: int) -> None:
    runner.run(import_id)


@app.task(acks_late=True, ignore_result=True)  # type: ignore[untyped-decorator]
def run_offline(import_id: int) -> None:
    retries.run_one(JobType.IMPORT_CONVERSIONS, import_id, lambda: offline_import.run(import_id))


@app.task(ignore_result=True)  # type: ignore[untyped-decorator]
def purge_uploads() -> None:
    """Delete uploaded files whose retention time is over."""
    files.delete_expired()
