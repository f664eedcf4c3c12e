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
from campaigns.delivery.models import EXPIRED, OPEN_STATES, OUTSIDE_WINDOW, Send, SendState, SkipReason
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
from tests.delivery.launched_activity import count_states, load_sends, make_mailing


def launch_mailing(size: int) -> int:
    with db.transaction() as session:
        activity = make_mailing(session, size)
        activity.campaign.status = CampaignStatus.ACTIVE
        activity_id = activity.id
    expand(activity_id)
    return activity_id


def set_state(activity_id: int, state: SendState, *, reason: str = "", send_id: int | None = None) -> None:
    with db.transaction() as session:
        change = update(Send).where(Send.activity_id == activity_id).values(state=state, reason=reason)
        session.execute(change.where(Send.id == send_id) if send_id else change)


def test_every_state_is_counted_and_they_add_up(database: Engine, coordinator_client: FlaskClient) -> None:
    activity_id = launch_mailing(len(SendState) + 1)
    for send, state in zip(load_sends(activity_id), SendState, strict=False):
        reason = SkipReason.SUPPRESSED if state is SendState.SKIPPED else ""
        set_state(activity_id, state, reason=reason, send_id=send.id)
        with db.read_only_session() as session:
            now = progress.measure_progress(session, session.get_one(Activity, activity_id))
        assert sum(now.counts.values()) == now.total == len(SendState) + 1
    assert set(now.counts) == set(SendState)
    assert now.total - now.done == sum(now.counts[state] for state in OPEN_STATES)
    shown = coordinator_client.get(f"/activities/{activity_id}/progress").text
    assert f"{now.done} / {now.total}" in shown
    assert "sends?reason=suppressed" in shown
    listed = coordinator_client.get(f"/activities/{activity_id}/sends?reason=suppressed").text
    assert listed.count("@example.net") == 1


def make_results(*outcomes: DeliveryResult) -> list[SendResult]:
    made = []
    for number, outcome in enumerate(outcomes):
        made.append(SendResult(Send(id=number), outcome, clock.now_micros() + number * 1_000_000))
    return made


def test_replies_are_grouped_with_their_times(database: Engine, frozen: FrozenClock) -> None:
    activity_id = launch_mailing(0)
    later = [
        DeliveryResult(DeliveryStatus.DEFERRED, f"451 4.3.0 id A1B2C3D{n} a{n}@b.example", "one:25") for n in range(3)
    ]
    for outcomes in (
        [DeliveryResult(DeliveryStatus.SENT, "250 ok", "one:25"), *later],
        [later[0], DeliveryResult(DeliveryStatus.SENT, "", "two:25")],
    ):
        with db.transaction() as session:
            reply_stats.count_replies(session, activity_id, make_results(*outcomes))
    with db.read_only_session() as session:
        (answer,) = reply_stats.reply_groups(session, activity_id)
        carried = reply_stats.throughput_by_relay(session, activity_id)
    assert (answer.count, answer.reply) == (4, "451 4.3.0 id … …")
    assert answer.last_at - answer.first_at == timedelta(seconds=3)
    assert answer.sample_reply.endswith("@b.example")
    assert [(each.relay, each.taken, each.later) for each in carried] == [("one:25", 1, 4), ("two:25", 1, 0)]


def test_distinct_replies_are_limited(database: Engine) -> None:
    activity_id = launch_mailing(0)
    chatter = [DeliveryResult(DeliveryStatus.SENDER_REJECTED, "550 " + "word " * n, "one:25") for n in range(50)]
    with db.transaction() as session:
        reply_stats.count_replies(session, activity_id, make_results(*chatter))
    with db.read_only_session() as session:
        answers = reply_stats.reply_groups(session, activity_id, limit=100)
    assert len(answers) == 21
    assert sum(each.count for each in answers) == 50


def test_current_rate(database: Engine, frozen: FrozenClock) -> None:
    activity_id = launch_mailing(4)
    frozen.at += timedelta(seconds=10)
    set_state(activity_id, SendState.SENT, send_id=load_sends(activity_id)[0].id)
    with db.read_only_session() as session:
        first = progress.measure_progress(session, session.get_one(Activity, activity_id))
    assert (first.per_second, first.current_rate) == (0.1, None)
    frozen.at += timedelta(seconds=2)
    set_state(activity_id, SendState.SENT, send_id=load_sends(activity_id)[1].id)
    with db.read_only_session() as session:
        activity = session.get_one(Activity, activity_id)
        assert progress.measure_progress(session, activity, first.poll_mark).current_rate == 0.5
        for nonsense in ("", "x.y", "9" * 40 + ".1.0", "1.99999999999.0", "٣.1.0"):
            assert progress.measure_progress(session, activity, nonsense).current_rate is None


def test_failed_sends_are_resent_after_the_end(database: Engine) -> None:
    activity_id = launch_mailing(4)
    set_state(activity_id, SendState.FAILED)
    set_state(activity_id, SendState.UNKNOWN, send_id=load_sends(activity_id)[0].id)
    with db.transaction() as session:
        activity = session.get_one(Activity, activity_id)
        resolution.resolve_sends(session, SYSTEM, activity, SendState.UNKNOWN, Resolution.FAILED)
        session.execute(update(Send).values(attempts=40))
        activity.status, activity.finished_at = ActivityStatus.FINISHED, clock.now()
    with db.transaction() as session:
        assert resolution.count_resendable(session, activity_id) == 3
        activity = session.get_one(Activity, activity_id)
        assert resolution.resolve_sends(session, SYSTEM, activity, SendState.FAILED, Resolution.RESEND) == 3
        assert activity.status is ActivityStatus.LIVE
        assert activity.finished_at is None
    # A send that was given up may have arrived: it is not sent again.
    assert count_states(activity_id) == {"queued": 3, "failed": 1}
    assert {send.attempts for send in load_sends(activity_id, SendState.QUEUED)} == {0}
    with db.read_only_session() as session:
        assert scheduler.with_due_sends(session) == [activity_id]
        assert activity_id not in scheduler.ready_to_finish(session)


def test_nothing_is_resent_in_a_finished_campaign(database: Engine) -> None:
    activity_id = launch_mailing(1)
    set_state(activity_id, SendState.FAILED)
    with db.transaction() as session:
        session.execute(update(Campaign).values(status=CampaignStatus.FINISHED))
        session.execute(update(Activity).values(status=ActivityStatus.FINISHED))
    with pytest.raises(Conflict), db.transaction() as session:
        resolution.resolve_sends(
            session, SYSTEM, session.get_one(Activity, activity_id), SendState.FAILED, Resolution.RESEND
        )
    assert count_states(activity_id) == {"failed": 1}


def test_unchanged_fragments_answer_204(coordinator_client: FlaskClient, frozen: FrozenClock) -> None:
    activity_id = launch_mailing(2)
    own = f"/activities/{activity_id}/progress"
    page = coordinator_client.get(own).text
    asked = page.split('hx-get="' + own + "/counts?")[1].split('"')[0].replace("&amp;", "&")
    frozen.at += timedelta(seconds=2)
    assert coordinator_client.get(f"{own}/counts?{asked}").status_code == 204
    set_state(activity_id, SendState.HELD)
    assert coordinator_client.get(f"{own}/counts?{asked}").status_code == 200
    pressed = page.split('hx-get="' + own + "/controls?")[1].split('"')[0]
    changed = coordinator_client.get(f"{own}/controls?{pressed}")
    assert changed.status_code == 200
    assert "Held: 2" in changed.text
    pressed = changed.text.split('hx-get="' + own + "/controls?")[1].split('"')[0]
    assert coordinator_client.get(f"{own}/controls?{pressed}").status_code == 204


def test_csv_escapes_formulas_and_needs_permission(coordinator_client: FlaskClient, viewer_client: FlaskClient) -> None:
    activity_id = launch_mailing(3)
    first, second, _ = load_sends(activity_id)
    set_state(activity_id, SendState.BOUNCED, send_id=first.id)
    set_state(activity_id, SendState.SENT, send_id=second.id)
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
    activity_id = launch_mailing(9)
    send_ids = [send.id for send in load_sends(activity_id)]
    set_state(activity_id, SendState.QUEUED, reason=OUTSIDE_WINDOW)
    for send_id, reason in zip(send_ids[:4], ["suppressed", "suppressed", "no_consent", "capped"], strict=True):
        set_state(activity_id, SendState.SKIPPED, reason=reason, send_id=send_id)
    set_state(activity_id, SendState.FAILED, reason=EXPIRED, send_id=send_ids[4])
    set_state(activity_id, SendState.FAILED, send_id=send_ids[5])
    opens = frozen.at + timedelta(hours=1)
    with db.transaction() as session:
        session.execute(update(Send).values(due_at=opens))
    with db.read_only_session() as session, count_queries(database) as queries:
        activity = session.get_one(Activity, activity_id)
        now = progress.measure_progress(session, activity)
        assert resolution.count_resendable(session, activity_id) == 1
    counting = {statement for statement in queries if "count(" in statement.lower() and "FROM sends" in statement}
    assert [("send_counts" in each, each.count("FROM sends")) for each in counting] == [(True, 1)], "those under way"
    assert dict(now.skipped) == {SkipReason.SUPPRESSED: 2, SkipReason.NO_CONSENT: 1, SkipReason.CAPPED: 1}
    assert (now.expired, now.waiting_for_window, now.time_left) == (1, 3, None)
    with db.transaction() as session:
        session.execute(update(Send).where(Send.id == send_ids[6]).values(due_at=frozen.at))
    with db.read_only_session() as session:  # Its window has opened: it waits for a worker only.
        assert progress.measure_progress(session, session.get_one(Activity, activity_id)).waiting_for_window == 2


def test_sending_and_waiting_are_counted_apart(database: Engine, frozen: FrozenClock) -> None:
    activity_id = launch_mailing(7)
    set_state(activity_id, SendState.QUEUED, reason=OUTSIDE_WINDOW)
    one, other, third, *_ = load_sends(activity_id)
    set_state(activity_id, SendState.QUEUED, send_id=third.id)
    for each in (one, other):
        set_state(activity_id, SendState.SENDING, send_id=each.id)
    with db.read_only_session() as session:
        standing = progress.count_by_state_and_reason(session, activity_id)
    assert standing == {(SendState.SENDING, ""): 2, (SendState.QUEUED, ""): 1, (SendState.QUEUED, OUTSIDE_WINDOW): 4}


def test_sending_count_uses_a_covering_index(sqlite_engine: Engine) -> None:
    """SQLite only: on a table this small PostgreSQL may choose any plan."""
    asked = "SELECT count(*) FROM sends WHERE activity_id = 1 AND state = 'sending'"
    with sqlite_engine.connect() as connection:
        plan = str(connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {asked}").all())
    assert "COVERING INDEX ix_sends_activity_id_state_due_at" in plan


def test_retry_time_of_deferred_sends(database: Engine, frozen: FrozenClock) -> None:
    activity_id = launch_mailing(3)
    first, second, third = load_sends(activity_id)
    later = frozen.at + timedelta(minutes=5)
    set_state(activity_id, SendState.DEFERRED)
    with db.transaction() as session:
        session.execute(update(Send).where(Send.id != second.id).values(due_at=later + timedelta(minutes=5)))
        session.execute(update(Send).where(Send.id == second.id).values(due_at=later))
        session.execute(update(Send).where(Send.id == first.id).values(due_at=frozen.at))
    set_state(activity_id, SendState.QUEUED, send_id=first.id)
    set_state(activity_id, SendState.SENT, send_id=third.id)
    with db.read_only_session() as session:  # One queued send was not tried yet.
        now = progress.measure_progress(session, session.get_one(Activity, activity_id))
    assert (now.retrying, now.retry_at, now.time_left) == (1, None, timedelta(seconds=1))
    set_state(activity_id, SendState.SENT, send_id=first.id)
    with db.read_only_session() as session:
        now = progress.measure_progress(session, session.get_one(Activity, activity_id))
    assert (now.retrying, now.retry_at, now.time_left) == (1, later, None)


def test_time_left_includes_paced_sends(database: Engine, frozen: FrozenClock) -> None:
    activity_id = launch_mailing(3)
    first, _second, third = load_sends(activity_id)
    set_state(activity_id, SendState.SENT, send_id=first.id)
    later = frozen.at + timedelta(minutes=15)
    with db.transaction() as session:
        session.execute(update(Send).where(Send.id == third.id).values(due_at=later))
    with db.read_only_session() as session:
        now = progress.measure_progress(session, session.get_one(Activity, activity_id))
    assert (now.waiting_for_window, now.paced_until, now.time_left) == (0, later, timedelta(minutes=15))
    with db.transaction() as session:  # The same due times, but because of the send window.
        waits = update(Send).where(Send.state == SendState.QUEUED).values(due_at=later, reason=OUTSIDE_WINDOW)
        session.execute(waits)
    with db.read_only_session() as session:
        now = progress.measure_progress(session, session.get_one(Activity, activity_id))
    assert (now.waiting_for_window, now.opens_at, now.paced_until, now.time_left) == (2, later, None, None)
