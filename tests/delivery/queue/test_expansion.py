"""Tests of expansion: one send per recipient, also with interruptions, concurrency and merges."""

import threading

import pytest
from sqlalchemy import Engine, select, text, update

from campaigns import clock, db
from campaigns.accounts.actor import SYSTEM
from campaigns.audience import suppression
from campaigns.audience.contact_merge import merge_contacts
from campaigns.audience.models import ConsentPurpose, ListMember, SuppressionReason
from campaigns.delivery.queue.expansion import expand, expand_chunk
from campaigns.planning.models import Activity, ActivityStatus, EmailDetails
from tests.delivery.launched_activity import count_states, grant_consent, load_sends, make_mailing
from tests.factories import make_contact


def activity_of(activity_id: int) -> Activity:
    with db.read_only_session() as session:
        return session.get_one(Activity, activity_id)


def test_reasons_add_up_and_suppression_wins(database: Engine) -> None:
    with db.transaction() as session:
        activity = make_mailing(session, 3)
        strangers = [make_contact(session) for _ in range(2)]
        suppressed = grant_consent(session, make_contact(session), ConsentPurpose.EMAIL)
        for contact in (*strangers, suppressed):
            session.add(ListMember(list_id=activity.email.list_id, contact_id=contact.id, added_at=clock.now()))
        for contact in (strangers[0], suppressed):
            suppression.suppress(session, SYSTEM, contact.email, SuppressionReason.MANUAL)
        activity_id = activity.id
    expand(activity_id)
    assert count_states(activity_id) == {"queued": 3, "skipped": 3}
    assert sorted(send.reason for send in load_sends(activity_id)) == [
        "",
        "",
        "",
        "no_consent",
        "suppressed",
        "suppressed",
    ]
    assert [send.id for send in load_sends(activity_id)] == [(activity_id << 32) + n for n in range(1, 7)]
    assert {send.recipient_key for send in load_sends(activity_id)} == {
        f"c:{send.contact_id}" for send in load_sends(activity_id)
    }
    assert all(send.version_id for send in load_sends(activity_id))


@pytest.mark.parametrize("chunk", [1, 2, 3, 7])
def test_chunks_number_on_and_may_be_interrupted(database: Engine, chunk: int) -> None:
    with db.transaction() as session:
        activity_id = make_mailing(session, 6).id
    assert expand_chunk(activity_id, chunk)
    assert activity_of(activity_id).email.expanded_at is None
    expand(activity_id, chunk)
    assert [send.id & 0xFFFFFFFF for send in load_sends(activity_id)] == [1, 2, 3, 4, 5, 6]
    assert activity_of(activity_id).email.expanded_at is not None
    expand(activity_id, chunk)  # Repeating it changes nothing.
    assert len(load_sends(activity_id)) == 6


def test_concurrent_expansion(database: Engine) -> None:
    with db.transaction() as session:
        activity_id = make_mailing(session, 40).id
    workers = [threading.Thread(target=expand, args=(activity_id, 3)) for _ in range(3)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert count_states(activity_id) == {"queued": 40}


def test_known_recipients_are_not_written_twice(database: Engine) -> None:
    with db.transaction() as session:
        activity_id = make_mailing(session, 4).id
    expand(activity_id)
    with db.transaction() as session:
        session.execute(update(EmailDetails).values(expanded_to=0, expanded_at=None))
    expand(activity_id)
    assert len(load_sends(activity_id)) == 4


def test_paused_activity_is_not_expanded(database: Engine) -> None:
    with db.transaction() as session:
        activity_id = make_mailing(session, 4).id
        session.execute(update(Activity).values(status=ActivityStatus.PAUSED))
    expand(activity_id)
    assert load_sends(activity_id) == []


@pytest.mark.parametrize("goes_first", [True, False])
def test_merge_between_chunks_sends_once(database: Engine, goes_first: bool) -> None:
    with db.transaction() as session:
        activity = make_mailing(session, 3)
        ids = sorted(session.scalars(select(ListMember.contact_id).where(ListMember.list_id == activity.email.list_id)))
        activity_id = activity.id
    assert expand_chunk(activity_id, 1)
    survivor_id, duplicate_id = (ids[2], ids[0]) if goes_first else (ids[0], ids[2])
    with db.transaction() as session:
        merge_contacts(session, SYSTEM, survivor_id, duplicate_id)
    expand(activity_id, 1)
    found = [(send.contact_id, send.state.value, send.reason) for send in load_sends(activity_id)]
    skipped = [(survivor_id, "skipped", "merged")] if goes_first else []
    assert found == [(ids[2] if goes_first else ids[0], "queued", ""), (ids[1], "queued", ""), *skipped]


def test_concurrent_merge_loses_no_recipient(database: Engine) -> None:
    """On PostgreSQL the chunk waits for the merge, after which a contact that it has selected no longer exists."""
    with db.transaction() as session:
        activity = make_mailing(session, 4)
        ids = sorted(session.scalars(select(ListMember.contact_id).where(ListMember.list_id == activity.email.list_id)))
        activity_id = activity.id
    worker = threading.Thread(target=expand, args=(activity_id,))
    with db.transaction() as session:
        merge_contacts(session, SYSTEM, ids[0], ids[3])
        worker.start()
        if database.dialect.name == "postgresql":
            while not _is_any_lock_awaited():
                worker.join(0.01)
    worker.join()
    assert {send.contact_id for send in load_sends(activity_id)} == set(ids[:3])
    assert count_states(activity_id) == {"queued": 3}


def _is_any_lock_awaited() -> bool:
    waiting = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
    with db.read_only_session() as session:
        return bool(session.scalar(text(waiting)))
