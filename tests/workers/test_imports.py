"""Import tasks take ids, and running them twice is harmless."""

import os
from datetime import timedelta

import pytest
from sqlalchemy import Engine

from campaigns import clock, db
from campaigns.accounts.actor import SYSTEM
from campaigns.audience.imports import files, service
from campaigns.audience.models import ImportState
from tests.audience.imports.csv_files import again, uploaded
from workers import imports as tasks


def test_the_tick_wakes_a_worker_for_what_waits(database: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    woken: list[int] = []
    monkeypatch.setattr(tasks.run, "apply_async", lambda args, **_: woken.append(*args))
    with db.transaction() as session:
        found = uploaded(session, "email\nann@example.org\n")
        uploaded(session, "email\nbob@example.org\n")
        service.check(session, SYSTEM, found)
    tasks.wake()
    assert woken == [found.id]
    tasks.run(found.id)
    tasks.run(found.id)
    assert again(found).state is ImportState.CHECKED
    woken.clear()
    tasks.wake()
    assert woken == []


def test_uploads_go_after_a_week(database: Engine) -> None:
    with db.transaction() as session:
        old, new = uploaded(session, "email\na@example.org\n"), uploaded(session, "email\na@example.org\n")
    before = (clock.now() - timedelta(days=8)).timestamp()
    os.utime(files.path_of(old.content_key), (before, before))
    tasks.sweep()
    assert not files.path_of(old.content_key).exists()
    assert files.path_of(new.content_key).exists()
