"""Import tasks take ids, and running them twice is harmless."""

import os
from datetime import timedelta

import pytest
from sqlalchemy import Engine

from campaigns import clock, db
from campaigns.accounts.actor import SYSTEM
from campaigns.audience.imports import files, service
from campaigns.audience.models import ImportState
from tests.audience.imports.csv_files import reload_import, upload_file
from workers import imports as tasks


def test_the_tick_enqueues_waiting_imports(database: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    enqueued: list[int] = []
    monkeypatch.setattr(tasks.run_contacts, "apply_async", lambda args, **_: enqueued.append(*args))
    with db.transaction() as session:
        checked = upload_file(session, "email\nann@example.org\n")
        upload_file(session, "email\nbob@example.org\n")
        service.request_dry_run(session, SYSTEM, checked)
    tasks.enqueue_due()
    assert enqueued == [checked.id]
    tasks.run_contacts(checked.id)
    tasks.run_contacts(checked.id)
    assert reload_import(checked).state is ImportState.CHECKED
    enqueued.clear()
    tasks.enqueue_due()
    assert enqueued == []


def test_uploads_are_purged_after_a_week(database: Engine) -> None:
    with db.transaction() as session:
        old, new = upload_file(session, "email\na@example.org\n"), upload_file(session, "email\na@example.org\n")
    before = (clock.now() - timedelta(days=8)).timestamp()
    os.utime(files.upload_path(old.content_key), (before, before))
    tasks.purge_uploads()
    assert not files.upload_path(old.content_key).exists()
    assert files.upload_path(new.content_key).exists()
