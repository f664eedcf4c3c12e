"""A failing row doesn't stop the others, and is reported."""

from datetime import timedelta
from typing import Any

import pytest
from flask.testing import FlaskClient
from sqlalchemy import Engine, select
from sqlalchemy.exc import OperationalError

from campaigns import clock, db, outbox, retries
from campaigns.delivery.models import Send
from campaigns.delivery.queue import scheduler
from campaigns.delivery.transactional import enqueue
from campaigns.delivery.worker import worker as delivering
from campaigns.planning import launch
from campaigns.planning.models import Activity, ActivityStatus
from campaigns.retries import JobFailure, JobType
from tests.conftest import NOON, FrozenClock
from tests.factories import make_activity
from tests.tracking import fixtures
from tests.tracking.conversions.test_attribution import add_submission
from tracking.bots import final_labels
from tracking.collector import collector
from tracking.jobs import lead_conversions
from tracking.models.conversions import Conversion
from tracking.models.events import TrafficLabel
from workers import maintenance, sending


def current_failures() -> list[tuple[JobType, str, int]]:
    with db.read_only_session() as session:
        return [(one.job, one.subject, one.failures) for one in retries.current_failures(session)]


def make_failing(monkeypatch: pytest.MonkeyPatch, owner: object, name: str, poison: Any) -> None:
    """Patch a function to raise when one of its arguments is, or has, the id ``poison``."""
    real = getattr(owner, name)

    def act(*args: Any, **named: Any) -> Any:
        if any(poison in (one, getattr(one, "id", None)) for one in (*args, *named.values())):
            raise ValueError("poison")
        return real(*args, **named)

    monkeypatch.setattr(owner, name, act)


def test_a_launch_that_fails_stops_no_other(
    database: Engine, frozen: FrozenClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    with db.transaction() as session:
        waiting: dict[str, Any] = {"status": ActivityStatus.SCHEDULED, "due_at": NOON - timedelta(hours=1)}
        ids = [make_activity(session, **waiting).id for _ in range(5)]
    with monkeypatch.context() as patch:
        make_failing(patch, launch, "apply_transition", ids[2])
        scheduler.find_due_work()
        scheduler.find_due_work()
    with db.read_only_session() as session:
        statuses = {one.id: one.status for one in session.scalars(select(Activity).where(Activity.id.in_(ids)))}
    assert statuses == dict.fromkeys(ids, ActivityStatus.LIVE) | {ids[2]: ActivityStatus.SCHEDULED}
    assert current_failures() == [(JobType.START_LAUNCH, str(ids[2]), 1)]  # The second tick skipped it.
    frozen.at = NOON + timedelta(seconds=11)
    scheduler.find_due_work()
    with db.read_only_session() as session:
        assert session.get_one(Activity, ids[2]).status is ActivityStatus.LIVE
    assert current_failures() == []


def test_a_system_mail_that_fails_stops_no_other(
    database: Engine, frozen: FrozenClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    with db.transaction() as session:
        mails = [outbox.enqueue(session, "password", f"p{n}@example.org", {}) for n in range(4)]
        session.flush()
        poison = mails[0].id
    make_failing(monkeypatch, enqueue, "enqueue_send", f"outbox:{poison}")
    for _ in range(2):
        with db.transaction() as session:
            scheduler.apply_due_changes(session)
    with db.read_only_session() as session:
        assert len(session.scalars(select(Send)).all()) == 3
    assert current_failures() == [(JobType.QUEUE_SYSTEM_MAIL, str(poison), 1)]


def test_backoff_grows_to_an_hour(database: Engine, frozen: FrozenClock) -> None:
    def act(_ids: object) -> None:
        raise ValueError("poison\nmore")

    tries = 0
    for _ in range(6 * 60):
        with db.transaction() as session:
            retries.run_batch(session, JobType.FINISH, [1], act)
            row = session.get_one(JobFailure, (JobType.FINISH, "1"))
            tries = row.failures
        frozen.at += timedelta(minutes=1)
    assert 10 < tries < 16
    assert row.error == "ValueError: poison"
    assert len(current_failures()) == 1


def test_an_unavailable_database_is_not_recorded_as_a_failure(database: Engine) -> None:
    def act(_ids: object = None) -> None:
        raise OperationalError("SELECT 1", {}, Exception("gone"))

    with pytest.raises(OperationalError), db.transaction() as session:
        retries.run_batch(session, JobType.FINISH, [1, 2], act)
    with pytest.raises(OperationalError):
        retries.run_one(JobType.DELIVER, 1, act)
    assert current_failures() == []


def test_a_failing_task_is_backed_off(database: Engine, frozen: FrozenClock, monkeypatch: pytest.MonkeyPatch) -> None:
    tried = []

    def deliver(activity_id: int) -> None:
        tried.append(activity_id)
        if len(tried) == 1:
            raise ValueError("poison")

    monkeypatch.setattr(delivering, "deliver", deliver)
    sending.deliver(7)
    sending.deliver(7)
    assert (tried, current_failures()) == ([7], [(JobType.DELIVER, "7", 1)])
    frozen.at += timedelta(seconds=11)
    sending.deliver(7)
    assert (tried, current_failures()) == ([7, 7], [])


def test_a_submission_that_fails_stops_no_other(
    database: Engine, frozen: FrozenClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    mailing = fixtures.make_mailing(5)
    ids = [add_submission(contact_id, mailing.activity_id) for contact_id in mailing.contacts]
    with monkeypatch.context() as patch:
        make_failing(patch, lead_conversions, "_record_submission", ids[1])
        maintenance.record_conversions()
    with db.read_only_session() as session:
        assert set(session.scalars(select(Conversion.submission_id))) == {*ids} - {ids[1]}
    assert current_failures() == [(JobType.CONVERT_SUBMISSION, str(ids[1]), 1)]
    # It is retried however many submissions come after it.
    monkeypatch.setattr(lead_conversions, "_COMMIT_ORDER_SLACK", 0)
    frozen.at += timedelta(seconds=11)
    maintenance.record_conversions()
    with db.read_only_session() as session:
        assert set(session.scalars(select(Conversion.submission_id))) == {*ids}
    assert current_failures() == []


def test_a_hit_that_fails_stops_no_other(
    database: Engine, frozen: FrozenClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    mailing = fixtures.make_mailing(4)
    for index in range(4):
        mailing.click(index=index, ip=f"198.51.{index}.9")
        frozen.at += timedelta(minutes=1)
    collector.collect_once()
    frozen.at += timedelta(minutes=16)
    poison = fixtures.events()[1].id

    def failing_judged(connection: Any, events: Any, crowds: Any) -> Any:
        if any(event.id == poison for event in events):
            raise ValueError("poison")
        return real_judged(connection, events, crowds)

    real_judged = final_labels.compute_label_changes
    monkeypatch.setattr(final_labels, "compute_label_changes", failing_judged)
    maintenance.finalise_labels()
    maintenance.finalise_labels()
    labels = {event.id: TrafficLabel(event.label) for event in fixtures.events()}
    assert labels.pop(poison) is TrafficLabel.SETTLING
    assert set(labels.values()) == {TrafficLabel.HUMAN}
    assert current_failures() == [(JobType.FINALISE_LABEL, str(poison), 1)]


def test_the_health_page_shows_failures(owner_client: FlaskClient) -> None:
    with db.transaction() as session:
        retries.run_batch(session, JobType.START_LAUNCH, [42], lambda _ids: [][0])
    page = owner_client.get("/health/installation").text
    assert "Begin the scheduled launch of activity 42" in page
    assert "IndexError" in page
    later = clock.now() + timedelta(hours=3)
    with db.transaction() as session, clock.override(lambda: later):
        retries.purge_expired(session)
    assert current_failures() == []
