"""Backlogs are processed batch by batch, within a time limit."""

from datetime import timedelta
from functools import partial

import pytest
from sqlalchemy import Engine, func, select, text

from campaigns import db
from campaigns.accounts import authentication
from campaigns.accounts.models import LoginAttempt
from tests.conftest import FrozenClock
from tests.tracking.conversions.test_attribution import add_submission
from tests.tracking.fixtures import events, make_mailing
from tracking.collector import collector
from tracking.models.conversions import Conversion
from tracking.models.events import TrafficLabel
from workers import maintenance, periodic


def test_one_tick_finalises_many_batches(
    database: Engine, frozen: FrozenClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    mailing = make_mailing(7)
    for index in range(7):
        mailing.click(index=index, ip=f"198.51.{index}.9")
        frozen.at += timedelta(minutes=1)
    collector.collect_once()
    frozen.at += timedelta(minutes=16)
    monkeypatch.setattr(maintenance, "_HIT_BATCH", 2)
    periodic.run_jobs([maintenance.finalise_labels])
    assert [TrafficLabel(event.label) for event in events()] == [TrafficLabel.HUMAN] * 7


def test_one_tick_records_many_batches_of_conversions(
    database: Engine, frozen: FrozenClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    mailing = make_mailing(5)
    for contact_id in mailing.contacts:
        add_submission(contact_id, mailing.activity_id)
    monkeypatch.setattr(maintenance, "_SUBMISSION_BATCH", 2)
    periodic.run_jobs([maintenance.record_conversions])
    with db.read_only_session() as session:
        assert session.scalar(select(func.count()).select_from(Conversion)) == 5


def test_a_run_ends_before_an_endless_backlog(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []

    def batch(name: str, more: bool) -> bool:
        calls.append(name)
        return more

    def broken() -> bool:
        calls.append("broken")
        raise ValueError("broken")

    monkeypatch.setattr(periodic, "_MAX_SECONDS", 0.05)
    with pytest.raises(ExceptionGroup):
        periodic.run_jobs([broken, partial(batch, "endless", True), partial(batch, "done", False)])
    assert calls[:4] == ["broken", "endless", "done", "endless"]
    assert set(calls[4:]) <= {"endless"}


def test_old_login_attempts_are_purged(database: Engine, frozen: FrozenClock) -> None:
    with db.transaction() as session:
        authentication.count_attempt(session, authentication.LoginRateLimitKeys.for_attempt("a@b.example", "n"))
    frozen.at += authentication.ATTEMPT_WINDOW + timedelta(seconds=1)
    maintenance.purge_expired()
    with db.read_only_session() as session:
        assert session.scalar(select(func.count()).select_from(LoginAttempt)) == 0


def test_sqlite_analyzes_large_tables_only(database: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(db, "_LARGE_TABLE_ROWS", 3)
    make_mailing(4)
    maintenance.analyze()
    assert ("contacts" in db.analyze_large_tables()) is (database.dialect.name == "sqlite")
    assert "campaigns" not in db.analyze_large_tables()
    if database.dialect.name == "sqlite":
        with db.read_only_session() as session:
            analyzed = session.scalars(text("SELECT DISTINCT tbl FROM sqlite_stat1")).all()
        assert set(analyzed) <= set(db.analyze_large_tables())
