"""Tests of progress counts, relay replies, rates, the CSV export and operator decisions."""

import csv
import io
from collections.abc import Callable
from contextlib import AbstractContextManager
from datetime import timedelta

import pytest
from flask.testing import FlaskClient
from sqlalchemy import Engine, update

from campaigns import clock, db
from campaigns.accounts.actor import SYSTEM
from campaigns.delivery.models import EXPIRED, OPEN, WINDOW, Send, SendState, SkipReason
from campaigns.delivery.queue import scheduler
from campaigns.delivery.queue.expansion import expand
from campaigns.delivery.queue.results import SendResult
from campaigns.delivery.relays import reply_stats
from campaigns.delivery.sends import progress, resolution
from campaigns.delivery.sends.resolution import Resolution
from campaigns.delivery.smtp.replies import DeliveryResult, DeliveryStatus
from campaigns.errors import Conflict
from campaigns.planning.models import Activity, ActivityStatus, Campaign, CampaignStatus
from tests.conftest import FrozenClock
from tests.delivery.launched_activity import make_mailing, sends, states


def launched(size: int) -> int:
    with db.transaction() as session:
        activity = make_mailing(session, size)
        activity.campaign.status = CampaignStatus.ACTIVE
        activity_id = activity.id
    expand(activity_id)
    return activity_id


def put(activity_id: int, state: SendState, *, reason: str = "", only: int | None = None) -> None:
    with db.transaction() as session:
        change = update(Send).where(Send.activity_id == activity_id).values(state=state, reason=reason)
        session.execute(change.where(Send.id == only) if only else change)


def test_every_state_is_counted_and_they_add_up(database: Engine, coordinator_client: FlaskClient) -> None:
    activity_id = launched(len(SendState) + 1)
    for send, state in zip(sends(activity_id), SendState, strict=False):
        reason = SkipReason.SUPPRESSED if state is SendState.SKIPPED else ""
        put(activity_id, state, reason=reason, only=send.id)
        with db.reading() as session:
            now = progress.progress(session, session.get_one(Activity, activity_id))
        assert sum(now.counts.values()) == now.total == len(SendState) + 1
    assert set(now.counts) == set(SendState)
    assert now.total - now.done == sum(now.counts[state] for state in OPEN)
    shown = coordinator_client.get(f"/activities/{activity_id}/progress").text
    assert f"{now.done} / {now.total}" in shown
    assert "sends?reason=suppressed" in shown
    listed = coordinator_client.get(f"/activities/{activity_id}/sends?reason=suppressed").text
    assert listed.count("@example.net") == 1


def results(*outcomes: DeliveryResult) -> list[SendResult]:
    made = []
    for number, outcome in enumerate(outcomes):
        made.append(SendResult(Send(id=number), outcome, clock.micros() + number * 1_000_000))
    return made


def test_answers_are_grouped_with_their_times(database: Engine, frozen: FrozenClock) -> None:
    activity_id = launched(0)
    later = [
        DeliveryResult(DeliveryStatus.DEFERRED, f"451 4.3.0 id A1B2C3D{n} a{n}@b.example", "one:25") for n in range(3)
    ]
    for outcomes in (
        [DeliveryResult(DeliveryStatus.SENT, "250 ok", "one:25"), *later],
        [later[0], DeliveryResult(DeliveryStatus.SENT, "", "two:25")],
    ):
        with db.transaction() as session:
            reply_stats.note(session, activity_id, results(*outcomes))
    with db.reading() as session:
        (answer,) = reply_stats.answers(session, activity_id)
        carried = reply_stats.by_relay(session, activity_id)
    assert (answer.number, answer.words) == (4, "451 4.3.0 id … …")
    assert answer.last_at - answer.first_at == timedelta(seconds=3)
    assert answer.example.endswith("@b.example")
    assert [(each.relay, each.taken, each.later) for each in carried] == [("one:25", 1, 4), ("two:25", 1, 0)]


def test_a_relay_of_many_words_fills_few_rows(database: Engine) -> None:
    activity_id = launched(0)
    chatter = [DeliveryResult(DeliveryStatus.SENDER_REJECTED, "550 " + "word " * n, "one:25") for n in range(50)]
    with db.transaction() as session:
        reply_stats.note(session, activity_id, results(*chatter))
    with db.reading() as session:
        answers = reply_stats.answers(session, activity_id, most=100)
    assert len(answers) == 21
    assert sum(each.number for each in answers) == 50


def test_rate_just_now(database: Engine, frozen: FrozenClock) -> None:
    activity_id = launched(4)
    frozen.at += timedelta(seconds=10)
    put(activity_id, SendState.SENT, only=sends(activity_id)[0].id)
    with db.reading() as session:
        first = progress.progress(session, session.get_one(Activity, activity_id))
    assert (first.per_second, first.lately) == (0.1, None)
    frozen.at += timedelta(seconds=2)
    put(activity_id, SendState.SENT, only=sends(activity_id)[1].id)
    with db.reading() as session:
        activity = session.get_one(Activity, activity_id)
        assert progress.progress(session, activity, first.mark).lately == 0.5
        for nonsense in ("", "x.y", "9" * 40 + ".1.0", "1.99999999999.0", "٣.1.0"):
            assert progress.progress(session, activity, nonsense).lately is None


def test_failed_ones_are_tried_again_even_when_it_is_over(database: Engine) -> None:
    activity_id = launched(4)
    put(activity_id, SendState.FAILED)
    put(activity_id, SendState.UNKNOWN, only=sends(activity_id)[0].id)
    with db.transaction() as session:
        activity = session.get_one(Activity, activity_id)
        resolution.decide(session, SYSTEM, activity, SendState.UNKNOWN, Resolution.FAILED)
        session.execute(update(Send).values(attempts=40))
        activity.status, activity.finished_at = ActivityStatus.FINISHED, clock.now()
    with db.transaction() as session:
        assert resolution.again_possible(session, activity_id) == 3
        activity = session.get_one(Activity, activity_id)
        assert resolution.decide(session, SYSTEM, activity, SendState.FAILED, Resolution.AGAIN) == 3
        assert activity.status is ActivityStatus.LIVE
        assert activity.finished_at is None
    # A send that was given up may have arrived: it is not sent again.
    assert states(activity_id) == {"queued": 3, "failed": 1}
    assert {send.attempts for send in sends(activity_id, SendState.QUEUED)} == {0}
    with db.reading() as session:
        assert scheduler.sendable(session) == [activity_id]
        assert activity_id not in scheduler.done(session)


def test_nothing_goes_on_in_a_campaign_that_is_over(database: Engine) -> None:
    activity_id = launched(1)
    put(activity_id, SendState.FAILED)
    with db.transaction() as session:
        session.execute(update(Campaign).values(status=CampaignStatus.FINISHED))
        session.execute(update(Activity).values(status=ActivityStatus.FINISHED))
    with pytest.raises(Conflict), db.transaction() as session:
        resolution.decide(session, SYSTEM, session.get_one(Activity, activity_id), SendState.FAILED, Resolution.AGAIN)
    assert states(activity_id) == {"failed": 1}


def test_nothing_moves_when_nothing_changed(coordinator_client: FlaskClient, frozen: FrozenClock) -> None:
    activity_id = launched(2)
    own = f"/activities/{activity_id}/progress"
    page = coordinator_client.get(own).text
    asked = page.split('hx-get="' + own + "/counts?")[1].split('"')[0].replace("&amp;", "&")
    frozen.at += timedelta(seconds=2)
    assert coordinator_client.get(f"{own}/counts?{asked}").status_code == 204
    put(activity_id, SendState.HELD)
    assert coordinator_client.get(f"{own}/counts?{asked}").status_code == 200
    pressed = page.split('hx-get="' + own + "/controls?")[1].split('"')[0]
    changed = coordinator_client.get(f"{own}/controls?{pressed}")
    assert changed.status_code == 200
    assert "Held: 2" in changed.text
    pressed = changed.text.split('hx-get="' + own + "/controls?")[1].split('"')[0]
    assert coordinator_client.get(f"{own}/controls?{pressed}").status_code == 204


def test_csv_is_harmless_and_only_for_those_who_may(
    coordinator_client: FlaskClient, viewer_client: FlaskClient
) -> None:
    activity_id = launched(3)
    first, second, _ = sends(activity_id)
    put(activity_id, SendState.BOUNCED, only=first.id)
    put(activity_id, SendState.SENT, only=second.id)
    with db.transaction() as session:
        session.execute(update(Send).where(Send.id == first.id).values(reply="=cmd|' /C calc'!A0"))
    answer = coordinator_client.get(f"/activities/{activity_id}/sends.csv")
    rows = list(csv.DictReader(io.StringIO(answer.get_data(as_text=True).removeprefix("\ufeff"))))
    assert [(row["address"], row["state"], row["answer"]) for row in rows] == [
        (first.address, "bounced", "'=cmd|' /C calc'!A0")
    ]
    of_sent = coordinator_client.get(f"/activities/{activity_id}/sends.csv?state=sent").get_data(as_text=True)
    assert second.address in of_sent
    assert first.address not in of_sent
    assert viewer_client.get(f"/activities/{activity_id}/sends.csv").status_code == 403
    domains = coordinator_client.get(f"/activities/{activity_id}/progress/domains").text
    assert "example.net" in domains


def test_reasons_are_counted_without_reading_sends(
    database: Engine, frozen: FrozenClock, count_queries: Callable[[Engine], AbstractContextManager[list[str]]]
) -> None:
    activity_id = launched(9)
    of = [send.id for send in sends(activity_id)]
    put(activity_id, SendState.QUEUED, reason=WINDOW)
    for send_id, reason in zip(of[:4], ["suppressed", "suppressed", "no_consent", "capped"], strict=True):
        put(activity_id, SendState.SKIPPED, reason=reason, only=send_id)
    put(activity_id, SendState.FAILED, reason=EXPIRED, only=of[4])
    put(activity_id, SendState.FAILED, only=of[5])
    opens = frozen.at + timedelta(hours=1)
    with db.transaction() as session:
        session.execute(update(Send).values(due_at=opens))
    with db.reading() as session, count_queries(database) as asked:
        activity = session.get_one(Activity, activity_id)
        now = progress.progress(session, activity)
        assert resolution.again_possible(session, activity_id) == 1
    counting = {statement for statement in asked if "count(" in statement.lower() and "FROM sends" in statement}
    assert [("send_counts" in each, each.count("FROM sends")) for each in counting] == [(True, 1)], "those under way"
    assert dict(now.skipped) == {SkipReason.SUPPRESSED: 2, SkipReason.NO_CONSENT: 1, SkipReason.CAPPED: 1}
    assert (now.late, now.waiting, now.left) == (1, 3, None)
    with db.transaction() as session:
        session.execute(update(Send).where(Send.id == of[6]).values(due_at=frozen.at))
    with db.reading() as session:  # Its window has opened: it waits for a worker only.
        assert progress.progress(session, session.get_one(Activity, activity_id)).waiting == 2


def test_who_is_under_way_is_told_apart_from_who_waits(database: Engine, frozen: FrozenClock) -> None:
    activity_id = launched(7)
    put(activity_id, SendState.QUEUED, reason=WINDOW)
    one, other, third, *_ = sends(activity_id)
    put(activity_id, SendState.QUEUED, only=third.id)
    for each in (one, other):
        put(activity_id, SendState.SENDING, only=each.id)
    with db.reading() as session:
        standing = progress.standing(session, activity_id)
    assert standing == {(SendState.SENDING, ""): 2, (SendState.QUEUED, ""): 1, (SendState.QUEUED, WINDOW): 4}


def test_who_is_under_way_is_counted_in_an_index(sqlite_engine: Engine) -> None:
    """SQLite only: on a table this small PostgreSQL may choose any plan."""
    asked = "SELECT count(*) FROM sends WHERE activity_id = 1 AND state = 'sending'"
    with sqlite_engine.connect() as connection:
        plan = str(connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {asked}").all())
    assert "COVERING INDEX ix_sends_activity_id_state_due_at" in plan


def test_says_when_the_late_are_tried_again(database: Engine, frozen: FrozenClock) -> None:
    activity_id = launched(3)
    first, second, third = sends(activity_id)
    later = frozen.at + timedelta(minutes=5)
    put(activity_id, SendState.DEFERRED)
    with db.transaction() as session:
        session.execute(update(Send).where(Send.id != second.id).values(due_at=later + timedelta(minutes=5)))
        session.execute(update(Send).where(Send.id == second.id).values(due_at=later))
        session.execute(update(Send).where(Send.id == first.id).values(due_at=frozen.at))
    put(activity_id, SendState.QUEUED, only=first.id)
    put(activity_id, SendState.SENT, only=third.id)
    with db.reading() as session:  # One queued send was not tried yet.
        now = progress.progress(session, session.get_one(Activity, activity_id))
    assert (now.again, now.retry_at, now.left) == (1, None, timedelta(seconds=1))
    put(activity_id, SendState.SENT, only=first.id)
    with db.reading() as session:
        now = progress.progress(session, session.get_one(Activity, activity_id))
    assert (now.again, now.retry_at, now.left) == (1, later, None)


def test_who_was_put_off_for_the_providers_sake_is_in_the_time_left(database: Engine, frozen: FrozenClock) -> None:
    activity_id = launched(3)
    first, _second, third = sends(activity_id)
    put(activity_id, SendState.SENT, only=first.id)
    later = frozen.at + timedelta(minutes=15)
    with db.transaction() as session:
        session.execute(update(Send).where(Send.id == third.id).values(due_at=later))
    with db.reading() as session:
        now = progress.progress(session, session.get_one(Activity, activity_id))
    assert (now.waiting, now.paced_until, now.left) == (0, later, timedelta(minutes=15))
    with db.transaction() as session:  # The same due times, but because of the send window.
        waits = update(Send).where(Send.state == SendState.QUEUED).values(due_at=later, reason=WINDOW)
        session.execute(waits)
    with db.reading() as session:
        now = progress.progress(session, session.get_one(Activity, activity_id))
    assert (now.waiting, now.opens_at, now.paced_until, now.left) == (2, later, None, None)
