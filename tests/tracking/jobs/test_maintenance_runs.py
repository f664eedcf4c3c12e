"""Tests of maintenance runs: trial, relabelling, counter check and repair, and their pages."""

from datetime import timedelta

import pytest
from flask.testing import FlaskClient
from sqlalchemy import Engine, select, update

from campaigns import clock, db
from campaigns.accounts.actor import Actor
from campaigns.accounts.models import AuditLogEntry, Role, User
from campaigns.errors import Conflict, Forbidden, ValidationFailed
from tests.conftest import FrozenClock
from tests.factories import make_person
from tests.tracking.collector.test_collector import check_counts
from tests.tracking.fixtures import Mailing, events, make_mailing, send_row
from tracking.bots import final_labels
from tracking.collector import collector
from tracking.jobs import counter_check, maintenance_runs, relabel
from tracking.models.events import Event, HitKind, HitRollup, TrafficLabel
from tracking.models.maintenance import MaintenanceKind, MaintenanceRun


@pytest.fixture
def mailing(database: Engine, frozen: FrozenClock) -> Mailing:
    """A mailing with three human clicks that older rules labelled as scanner."""
    mailing = make_mailing(3)
    for index in range(3):
        frozen.at += timedelta(minutes=2)
        mailing.click(index=index, ip=f"198.51.{index}.9")
    collector.collect_once()
    frozen.at += timedelta(minutes=20)
    final_labels.settle_due()
    with db.transaction() as session:
        session.execute(update(Event).values(label=TrafficLabel.SCANNER, rules=0))
        counter_check.rebuild(session)
    return mailing


def ordered(kind: MaintenanceKind, role: Role = Role.OWNER, days: int = 1) -> int:
    with db.transaction() as session:
        person = session.scalar(select(User).where(User.role == role)) or make_person(session, role=role)
        now = clock.now()
        return maintenance_runs.order(session, Actor.of(person), kind, now - timedelta(days=days), now).id


def seen(inspection_id: int) -> tuple[MaintenanceRun, maintenance_runs.MaintenanceReport]:
    with db.reading() as session:
        one = maintenance_runs.inspection(session, inspection_id)
        return one, maintenance_runs.told(session, one)


def test_a_trial_tells_and_what_follows_does(mailing: Mailing, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(relabel, "PORTION", 2)
    trial = ordered(MaintenanceKind.TRIAL)
    maintenance_runs.run(trial)
    one, told = seen(trial)
    assert one.finished_at is not None
    assert (one.done, one.total, told.seen, told.moved) == (3, 3, 3, 3)
    [row] = told.rows
    assert (row.activity_id, row.kind) == (mailing.activity_id, HitKind.CLICK)
    assert (row.labels[TrafficLabel.SCANNER], row.labels[TrafficLabel.HUMAN]) == ((3, 0), (0, 3))
    assert {event.label for event in events()} == {TrafficLabel.SCANNER}
    with db.transaction() as session:
        owner = Actor.of(session.scalars(select(User).where(User.role == Role.OWNER)).one())
        change = maintenance_runs.again(session, owner, trial).id
    maintenance_runs.run(change)
    maintenance_runs.run(change)
    assert seen(change)[1].moved == 3
    assert {event.label for event in events()} == {TrafficLabel.HUMAN}
    assert all(send_row(send).clicked_at for send in mailing.sends)
    check_counts()
    with db.reading() as session:
        verbs = list(
            session.scalars(select(AuditLogEntry.action).where(AuditLogEntry.subject_kind == "maintenance run"))
        )
    assert verbs == ["start trial", "start relabel"]


def test_a_run_that_is_broken_off_goes_on(mailing: Mailing, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(relabel, "PORTION", 1)
    monkeypatch.setattr(maintenance_runs, "AT_MOST", 0.0)
    trial = ordered(MaintenanceKind.RELABEL)
    maintenance_runs.run(trial)
    assert (seen(trial)[0].done, seen(trial)[0].finished_at) == (1, None)
    take = maintenance_runs._take

    def overtaken(held: MaintenanceRun, portion: maintenance_runs.Chunk) -> None:
        take(held, portion)
        raise SystemExit

    with monkeypatch.context() as patch:
        patch.setattr(maintenance_runs, "_take", overtaken)
        with pytest.raises(SystemExit):
            maintenance_runs.run(trial)
    assert sorted(event.label for event in events()) == [TrafficLabel.HUMAN, TrafficLabel.SCANNER, TrafficLabel.SCANNER]
    while seen(trial)[0].finished_at is None:
        maintenance_runs.run(trial)
    assert (seen(trial)[0].done, seen(trial)[1].moved) == (3, 3)
    check_counts()


def test_counters_are_checked_and_mended(mailing: Mailing) -> None:
    first = ordered(MaintenanceKind.CHECK)
    maintenance_runs.run(first)
    assert not seen(first)[1].differs
    with db.transaction() as session:
        session.execute(update(HitRollup).values(events=HitRollup.events + 1))
    second = ordered(MaintenanceKind.CHECK)
    maintenance_runs.run(second)
    [(activity_id, _title, number)] = seen(second)[1].counters
    assert (activity_id, number > 0) == (mailing.activity_id, True)
    mended = ordered(MaintenanceKind.REPAIR)
    maintenance_runs.run(mended)
    assert seen(mended)[1].counters == seen(second)[1].counters
    check_counts()


def test_who_may_and_when(mailing: Mailing) -> None:
    with pytest.raises(Forbidden):
        ordered(MaintenanceKind.TRIAL, role=Role.COORDINATOR)
    with pytest.raises(ValidationFailed):
        ordered(MaintenanceKind.TRIAL, days=0)
    first = ordered(MaintenanceKind.TRIAL)
    with pytest.raises(Conflict):
        ordered(MaintenanceKind.CHECK)
    with db.transaction() as session:  # The requester is no owner any more.
        session.execute(update(User).values(role=Role.VIEWER))
    maintenance_runs.run(first)
    one, told = seen(first)
    assert one.error
    assert not told.differs


def test_the_pages(owner_client: FlaskClient, mailing: Mailing) -> None:
    day = clock.now().date().isoformat()
    assert "must not lie" in owner_client.post("/health/log", data={"since": day, "until": "2001-01-01"}).text
    assert "At most ten years" in owner_client.post("/health/log", data={"since": day, "until": "9999-12-31"}).text
    made = owner_client.post("/health/log", data={"since": day, "until": day, "once": "k" * 12})
    assert made.status_code == 303
    assert 'hx-get="/health/log/' in owner_client.get(made.location).text
    assert "still running" in owner_client.post("/health/log/checks").text
    maintenance_runs.run(int(made.location.rpartition("/")[2]))
    page = owner_client.get(made.location).text
    assert "Give these labels" in page
    assert "hx-get" not in page.partition('id="inspection"')[2].partition(">")[0]
    change = owner_client.post(f"{made.location}/change")
    assert change.status_code == 303
    maintenance_runs.run(int(change.location.rpartition("/")[2]))
    assert "Labels changed" in owner_client.get(change.location).text
    assert owner_client.post(f"{change.location}/change").status_code == 409
    listed = owner_client.get("/health/log").text
    assert "Trial of the rules" in listed
    assert "Labels anew" in listed
