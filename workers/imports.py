"""Contact imports: the tick finds those that wait, a task carries one of them."""

from campaigns import db
from campaigns.audience import import_files, import_run
from workers.celery import app


@app.task(ignore_result=True)  # type: ignore[untyped-decorator]
def tick() -> None:
    """Wake a worker for each import that waits."""
    with db.reading() as session:
        due = import_run.due_imports(session)
    for import_id in due:
        run.apply_async((import_id,), expires=60)


@app.task(acks_late=True, ignore_result=True)  # type: ignore[untyped-decorator]
def run(import_id: int) -> None:
    import_run.run(import_id)


@app.task(ignore_result=True)  # type: ignore[untyped-decorator]
def sweep() -> None:
    """Remove uploaded files whose time is over."""
    import_files.sweep()
