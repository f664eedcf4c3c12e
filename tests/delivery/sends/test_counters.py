"""Tests of the send counters: they equal a recount of the sends after every kind of write."""

import random
from collections import Counter
from datetime import UTC, datetime, timedelta
from typing import Any

import sqlalchemy as sa
from sqlalchemy import delete, insert, select, update
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.orm import Session

from campaigns.delivery.models import Send, SendState
from campaigns.delivery.sends.counters import REASON_FLAGS, SendCount, SendFlag
from tests import factories

START = datetime(2026, 11, 22, 10, 7, tzinfo=UTC)
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def send_row(activity_id: int, number: int, **values: Any) -> dict[str, Any]:
    return {
        "id": activity_id << 32 | number,
        "activity_id": activity_id,
        "address": f"a{number}@example.org",
        "recipient_key": f"a:{number}",
        "occasion": "",
        "state": SendState.QUEUED,
        "trackable": False,
        **values,
    }


def stored_counts(session: Session) -> Counter[tuple[int, datetime, SendState, int]]:
    key = SendCount.activity_id, SendCount.bucket, SendCount.state, SendCount.flags
    rows = session.execute(select(*key, sa.func.sum(SendCount.count)).group_by(*key))
    return Counter({(id, bucket, state, marks): int(number) for id, bucket, state, marks, number in rows if number})


def recount(session: Session) -> Counter[tuple[int, datetime, SendState, int]]:
    counts: Counter[tuple[int, datetime, SendState, int]] = Counter()
    session.expire_all()
    for send in session.scalars(select(Send).where(Send.occasion == "")):
        if send.state in (SendState.QUEUED, SendState.SENDING):
            counts[send.activity_id, EPOCH, SendState.QUEUED, int(REASON_FLAGS.get(send.reason, SendFlag(0)))] += 1
            continue
        marks = SendFlag.TRACKABLE if send.trackable else SendFlag(0)
        marks |= SendFlag.OPENED if send.first_opened_at or send.clicked_at else SendFlag(0)
        marks |= SendFlag.CLICKED if send.clicked_at else SendFlag(0)
        marks |= SendFlag.UNSUBSCRIBED if send.unsubscribed_at else SendFlag(0)
        marks |= SendFlag.ACCEPTED if send.sent_at else SendFlag(0)
        bounced = send.reason if send.state is SendState.BOUNCED else ""
        marks |= {"hard": SendFlag.HARD_BOUNCE, "policy": SendFlag.POLICY_BOUNCE}.get(bounced, SendFlag(0))
        marks |= SendFlag.COMPLAINED if send.complained_at else SendFlag(0)
        marks |= REASON_FLAGS.get(send.reason, SendFlag(0))
        sent = send.sent_at or send.bounced_at
        bucket = EPOCH if sent is None else sent.replace(minute=sent.minute // 15 * 15, second=0, microsecond=0)
        counts[send.activity_id, bucket, send.state, int(marks)] += 1
    return counts


def test_counters_follow_every_change(session: Session) -> None:
    activity, other = (factories.make_activity(session).id for _ in range(2))
    session.execute(insert(Send), [send_row(activity, n) for n in range(1, 81)] + [send_row(other, 1)])
    session.execute(insert(Send), [send_row(activity, 99, occasion="a test", state=SendState.SENT)])
    assert stored_counts(session) == {
        (activity, EPOCH, SendState.QUEUED, 0): 80,
        (other, EPOCH, SendState.QUEUED, 0): 1,
    }
    rng = random.Random(7)
    for _ in range(40):
        chosen = Send.id.in_([activity << 32 | rng.randint(1, 99) for _ in range(12)] + [other << 32 | 1])
        moment = START + timedelta(minutes=rng.randint(0, 90))
        values: dict[str, Any] = rng.choice(
            [
                {"state": SendState.SENT, "sent_at": moment},
                {"state": SendState.BOUNCED, "bounced_at": moment},
                {"trackable": rng.random() < 0.7},
                {"first_opened_at": moment, "last_opened_at": moment},
                {"clicked_at": rng.choice([moment, None])},
                {"first_opened_at": None},
                {"unsubscribed_at": moment},
                {"state": SendState.SKIPPED, "reason": rng.choice(["suppressed", "no_consent", "capped"])},
                {"reason": rng.choice(["", "expired", "given up", "window"])},
                {"complained_at": moment},
                {"state": SendState.BOUNCED, "reason": rng.choice(["hard", "soft", "policy"])},
                {"attempts": 3},
                {"sent_at": None},
                {"state": SendState.SENDING, "reason": "", "trackable": True},
                {"state": SendState.QUEUED},
                {"state": SendState.SENDING},
                {"state": SendState.DEFERRED},
            ]
        )
        session.execute(update(Send).where(chosen).values(values))
        assert stored_counts(session) == recount(session)
    assert len(stored_counts(session)) > 10
    session.execute(delete(Send).where(Send.id > activity << 32 | 40))
    assert stored_counts(session) == recount(session)


def test_conflicting_insert_counts_once(session: Session) -> None:
    activity = factories.make_activity(session).id
    for _ in range(2):
        rows = [send_row(activity, n) for n in range(1, 6)]
        dialect = postgresql if session.get_bind().dialect.name == "postgresql" else sqlite
        session.execute(dialect.insert(Send).on_conflict_do_nothing(), rows)
    assert stored_counts(session) == {(activity, EPOCH, SendState.QUEUED, 0): 5}


def test_a_milestone_set_through_the_object_counts(session: Session) -> None:
    activity = factories.make_activity(session).id
    send = Send(**send_row(activity, 1, state=SendState.SENT, sent_at=START, trackable=True))
    session.add(send)
    session.flush()
    send.clicked_at = START
    session.flush()
    bucket = START.replace(minute=0)
    marks = int(SendFlag.TRACKABLE | SendFlag.OPENED | SendFlag.CLICKED | SendFlag.ACCEPTED)
    assert stored_counts(session) == {(activity, bucket, SendState.SENT, marks): 1}
