"""Sending tasks: running one twice is harmless, and so is losing every message."""

from collections.abc import Iterator
from datetime import timedelta

import pytest
from sqlalchemy import Engine, select, update
from sqlalchemy.orm import Session

from campaigns import clock, db, outbox
from campaigns.delivery.models import Send, SendState
from campaigns.delivery.queue import scheduler
from campaigns.planning import system_activities
from campaigns.planning.models import Activity, ActivityStatus
from tests.delivery.conftest import catcher, faults  # noqa: F401  (fixtures)
from tests.delivery.launched_activity import count_mails, count_states, make_mailing
from workers import maintenance, periodic, sending
from workers.celery import QUEUES, app, import_tasks
from workers.schedule import SCHEDULE

CONTEXT = {"name": "Me", "hours": 2, "link": "https://kampania.example/password/reset/x"}


@pytest.fixture(autouse=True)
def eager() -> Iterator[None]:
    """Run tasks where they are called; apply_async() then sends no message."""
    app.conf.task_always_eager, app.conf.task_eager_propagates = True, True
    yield
    app.conf.task_always_eager = False


def status(activity_id: int) -> ActivityStatus:
    with db.read_only_session() as session:
        return session.get_one(Activity, activity_id).status


def test_a_mailing_from_schedule_to_finish(database: Engine, catcher: int) -> None:  # noqa: F811
    with db.transaction() as session:
        activity = make_mailing(session, 12, status=ActivityStatus.SCHEDULED, launched_at=None)
        activity_id, activity.due_at = activity.id, clock.now() + timedelta(hours=1)
    sending.enqueue_due()
    assert (status(activity_id), count_states(activity_id)) == (ActivityStatus.SCHEDULED, {})
    with db.transaction() as session:
        session.execute(update(Activity).values(due_at=clock.now() - timedelta(seconds=1)))
    for _ in range(4):
        sending.enqueue_due()
    assert status(activity_id) is ActivityStatus.FINISHED
    assert count_states(activity_id) == {"sent": 12}
    assert set(count_mails().values()) == {1}


def test_every_task_may_run_twice(database: Engine, catcher: int) -> None:  # noqa: F811
    with db.transaction() as session:
        activity_id = make_mailing(session, 5).id
    for _ in range(2):
        sending.expand_audience(activity_id)
    for _ in range(2):
        sending.deliver(activity_id)
    for task in (periodic.dispatch_due, periodic.process_backlogs, maintenance.clean_journals) * 2:
        task()
    assert count_states(activity_id) == {"sent": 5}
    assert set(count_mails().values()) == {1}


def test_cancelling_cancels_all_queued_sends(database: Engine) -> None:
    with db.transaction() as session:
        activity_id = make_mailing(session, 5).id
    sending.expand_audience(activity_id)
    with db.transaction() as session:
        first = select(Send.id).order_by(Send.id).limit(1)
        session.execute(update(Send).where(Send.id == first.scalar_subquery()).values(state=SendState.SENT))
        session.execute(update(Activity).values(status=ActivityStatus.CANCELLED))
    scheduler.find_due_work()
    assert count_states(activity_id) == {"sent": 1, "cancelled": 4}


def test_held_sends_keep_the_activity_live(database: Engine) -> None:
    with db.transaction() as session:
        activity_id = make_mailing(session, 1).id
    sending.expand_audience(activity_id)
    with db.transaction() as session:
        session.execute(update(Send).values(state=SendState.HELD))
    scheduler.find_due_work()
    assert status(activity_id) is ActivityStatus.LIVE


def test_the_outbox_is_sent_once(database: Engine, catcher: int) -> None:  # noqa: F811
    def ask(session: Session) -> int:
        outbox.enqueue(session, "password", "me@example.org", CONTEXT)
        return system_activities.get_or_create(session, "system").id

    with db.transaction() as session:
        make_mailing(session, 0)
        activity_id = ask(session)
    for _ in range(3):
        sending.enqueue_due()
    with db.read_only_session() as session:
        send = session.scalars(select(Send).where(Send.activity_id == activity_id)).one()
        assert send.recipient_key == "a:me@example.org"
        assert send.state is SendState.SENT
    assert count_mails() == {"me@example.org": 1}


def test_the_schedule_names_tasks_that_exist() -> None:
    import_tasks()
    for entry in SCHEDULE.values():
        assert entry["task"] in app.tasks
        assert entry["options"]["expires"] >= entry["schedule"]


def test_the_app_uses_json_and_stores_no_results() -> None:
    assert app.conf.accept_content == ["json"]
    assert app.conf.task_ignore_result
    assert app.conf.task_acks_late
    assert app.conf.worker_prefetch_multiplier == 1
    assert set(app.amqp.queues) == set(QUEUES)
