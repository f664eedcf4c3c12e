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
from tests.factories import make_user
from tests.tracking.collector.test_collector import check_counts
from tests.tracking.fixtures import Mailing, events, get_send, make_mailing
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


def order_run(kind: MaintenanceKind, role: Role = Role.OWNER, days: int = 1) -> int:
    with db.transaction() as session:
        person = session.scalar(select(User).where(User.role == role)) or make_user(session, role=role)
        now = clock.now()
        return maintenance_runs.order_run(session, Actor.of_user(person), kind, now - timedelta(days=days), now).id


def load_run(run_id: int) -> tuple[MaintenanceRun, maintenance_runs.MaintenanceReport]:
    with db.read_only_session() as session:
        maintenance_run = maintenance_runs.get_run(session, run_id)
        return maintenance_run, maintenance_runs.report(session, maintenance_run)


def test_trial_reports_and_its_follow_up_relabels(mailing: Mailing, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(relabel, "CHUNK_SIZE", 2)
    trial = order_run(MaintenanceKind.TRIAL)
    maintenance_runs.run(trial)
    maintenance_run, report = load_run(trial)
    assert maintenance_run.finished_at is not None
    assert (maintenance_run.done, maintenance_run.total, report.events_checked, report.labels_changed) == (3, 3, 3, 3)
    [row] = report.rows
    assert (row.activity_id, row.kind) == (mailing.activity_id, HitKind.CLICK)
    assert (row.labels[TrafficLabel.SCANNER], row.labels[TrafficLabel.HUMAN]) == ((3, 0), (0, 3))
    assert {event.label for event in events()} == {TrafficLabel.SCANNER}
    with db.transaction() as session:
        owner = Actor.of_user(session.scalars(select(User).where(User.role == Role.OWNER)).one())
        change = maintenance_runs.order_follow_up(session, owner, trial).id
    maintenance_runs.run(change)
    maintenance_runs.run(change)
    assert load_run(change)[1].labels_changed == 3
    assert {event.label for event in events()} == {TrafficLabel.HUMAN}
    assert all(get_send(send).clicked_at for send in mailing.sends)
    check_counts()
    with db.read_only_session() as session:
        verbs = list(
            session.scalars(select(AuditLogEntry.action).where(AuditLogEntry.subject_kind == "maintenance run"))
        )
    assert verbs == ["start trial", "start relabel"]


def test_interrupted_run_resumes(mailing: Mailing, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(relabel, "CHUNK_SIZE", 1)
    monkeypatch.setattr(maintenance_runs, "RUN_SECONDS", 0.0)
    relabel_run = order_run(MaintenanceKind.RELABEL)
    maintenance_runs.run(relabel_run)
    assert (load_run(relabel_run)[0].done, load_run(relabel_run)[0].finished_at) == (1, None)
    store_chunk = maintenance_runs._store_chunk

    def exit_after_storing(held: MaintenanceRun, chunk: maintenance_runs.Chunk) -> None:
        store_chunk(held, chunk)
        raise SystemExit

    with monkeypatch.context() as patch:
        patch.setattr(maintenance_runs, "_store_chunk", exit_after_storing)
        with pytest.raises(SystemExit):
            maintenance_runs.run(relabel_run)
    assert sorted(event.label for event in events()) == [TrafficLabel.HUMAN, TrafficLabel.SCANNER, TrafficLabel.SCANNER]
    while load_run(relabel_run)[0].finished_at is None:
        maintenance_runs.run(relabel_run)
    assert (load_run(relabel_run)[0].done, load_run(relabel_run)[1].labels_changed) == (3, 3)
    check_counts()


def test_counters_are_checked_and_repaired(mailing: Mailing) -> None:
    first = order_run(MaintenanceKind.CHECK)
    maintenance_runs.run(first)
    assert not load_run(first)[1].has_differences
    with db.transaction() as session:
        session.execute(update(HitRollup).values(events=HitRollup.events + 1))
    second = order_run(MaintenanceKind.CHECK)
    maintenance_runs.run(second)
    [(activity_id, _title, number)] = load_run(second)[1].counters
    assert (activity_id, number > 0) == (mailing.activity_id, True)
    repair = order_run(MaintenanceKind.REPAIR)
    maintenance_runs.run(repair)
    assert load_run(repair)[1].counters == load_run(second)[1].counters
    check_counts()


def test_permissions_and_conflicts(mailing: Mailing) -> None:
    with pytest.raises(Forbidden):
        order_run(MaintenanceKind.TRIAL, role=Role.COORDINATOR)
    with pytest.raises(ValidationFailed):
        order_run(MaintenanceKind.TRIAL, days=0)
    first = order_run(MaintenanceKind.TRIAL)
    with pytest.raises(Conflict):
        order_run(MaintenanceKind.CHECK)
    with db.transaction() as session:  # The requester is no owner any more.
        session.execute(update(User).values(role=Role.VIEWER))
    maintenance_runs.run(first)
    maintenance_run, report = load_run(first)
    assert maintenance_run.error
    assert not report.has_differences


def test_maintenance_pages(owner_client: FlaskClient, mailing: Mailing) -> None:
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
    assert "hx-get" not in page.partition('id="maintenance-run"')[2].partition(">")[0]
    change = owner_client.post(f"{made.location}/change")
    assert change.status_code == 303
    maintenance_runs.run(int(change.location.rpartition("/")[2]))
    assert "Labels changed" in owner_client.get(change.location).text
    assert owner_client.post(f"{change.location}/change").status_code == 409
    listed = owner_client.get("/health/log").text
    assert "Trial of the rules" in listed
    assert "Labels anew" in listed
