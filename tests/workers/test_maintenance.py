"""Backlogs are processed batch by batch, within a time limit."""

from datetime import timedelta
from functools import partial

import pytest
from sqlalchemy import Engine, func, select, text

from campaigns import db
from campaigns.accounts import authentication
from campaigns.accounts.models import LoginAttempt
from tests.conftest import FrozenClock
from tests.tracking.conversions.test_attribution import submit
from tests.tracking.fixtures import events, make_mailing
from tracking.collector import collector
from tracking.models.conversions import Conversion
from tracking.models.events import TrafficLabel
from workers import maintenance, periodic


def test_one_tick_settles_many_portions(database: Engine, frozen: FrozenClock, monkeypatch: pytest.MonkeyPatch) -> None:
    mailing = make_mailing(7)
    for index in range(7):
        mailing.click(index=index, ip=f"198.51.{index}.9")
        frozen.at += timedelta(minutes=1)
    collector.collect_once()
    frozen.at += timedelta(minutes=16)
    monkeypatch.setattr(maintenance, "_HITS", 2)
    periodic.take([maintenance.settle])
    assert [TrafficLabel(event.label) for event in events()] == [TrafficLabel.HUMAN] * 7


def test_one_tick_converts_many_portions(
    database: Engine, frozen: FrozenClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    mailing = make_mailing(5)
    for contact_id in mailing.contacts:
        submit(contact_id, mailing.activity_id)
    monkeypatch.setattr(maintenance, "_SUBMISSIONS", 2)
    periodic.take([maintenance.convert])
    with db.reading() as session:
        assert session.scalar(select(func.count()).select_from(Conversion)) == 5


def test_a_turn_ends_though_the_backlog_does_not(monkeypatch: pytest.MonkeyPatch) -> None:
    taken = []

    def portion(name: str, more: bool) -> bool:
        taken.append(name)
        return more

    def broken() -> bool:
        taken.append("broken")
        raise ValueError("broken")

    monkeypatch.setattr(periodic, "_AT_MOST", 0.05)
    with pytest.raises(ExceptionGroup):
        periodic.take([broken, partial(portion, "endless", True), partial(portion, "done", False)])
    assert taken[:4] == ["broken", "endless", "done", "endless"]
    assert set(taken[4:]) <= {"endless"}


def test_attempts_to_sign_in_are_forgotten(database: Engine, frozen: FrozenClock) -> None:
    with db.transaction() as session:
        authentication.knock(session, authentication.LoginRateLimitKeys.of("a@b.example", "n"))
    frozen.at += authentication.WINDOW + timedelta(seconds=1)
    maintenance.forget()
    with db.reading() as session:
        assert session.scalar(select(func.count()).select_from(LoginAttempt)) == 0


def test_sqlite_learns_of_large_tables_only(database: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(db, "_LARGE", 3)
    make_mailing(4)
    maintenance.learn()
    assert ("contacts" in db.learn()) is (database.dialect.name == "sqlite")
    assert "campaigns" not in db.learn()
    if database.dialect.name == "sqlite":
        with db.reading() as session:
            known = session.scalars(text("SELECT DISTINCT tbl FROM sqlite_stat1")).all()
        assert set(known) <= set(db.learn())
