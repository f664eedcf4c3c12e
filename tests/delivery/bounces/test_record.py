"""Tests of the effects of bounces and complaints, each applied once, on both databases."""

from datetime import timedelta

import pytest
from sqlalchemy import Engine, func, select, text

from campaigns import clock, db
from campaigns.accounts.actor import SYSTEM
from campaigns.audience import consent, erasure, suppression
from campaigns.audience.models import ConsentLevel, ConsentPurpose, Suppression, SuppressionReason
from campaigns.delivery.bounces.effects import circuit_breaker, record
from campaigns.delivery.bounces.intake import maildir, queue
from campaigns.delivery.bounces.models import Feedback, FeedbackCount, FeedbackSource, FeedbackType, InboundMessage
from campaigns.delivery.bounces.parsing.parser import ParsedBounce, parse
from campaigns.delivery.models import ERASED_ADDRESS, Send, SendState
from campaigns.delivery.sends import progress
from campaigns.planning.models import Activity, ActivityStatus
from tests.conftest import FrozenClock
from tests.delivery.bounces.corpus import CORPUS, dsn_report
from tests.delivery.launched_activity import make_mailing
from tests.factories import make_contact

SAMPLES = {shape.name: shape for shape in CORPUS}


def make_sends(recipients: int = 1, state: SendState = SendState.SENT) -> tuple[int, list[int]]:
    """Make a live activity of sends in ``state``; return (activity id, send ids)."""
    from campaigns.delivery.queue.expansion import expand

    with db.transaction() as session:
        activity_id = make_mailing(session, recipients).id
    expand(activity_id)
    with db.transaction() as session:
        sends = list(session.scalars(select(Send).where(Send.activity_id == activity_id).order_by(Send.id)))
        for send in sends:
            send.state, send.sent_at, send.due_at = state, clock.now() if state is SendState.SENT else None, None
        return activity_id, [send.id for send in sends]


def deliver_report(raw: str | bytes, source: FeedbackSource = FeedbackSource.MTA) -> None:
    maildir.store_mail(raw if isinstance(raw, bytes) else raw.encode(), source)
    process_reports()


def process_reports() -> None:
    while maildir.move_to_queue() + queue.process_due():
        pass


def send_of(send_id: int) -> Send:
    with db.read_only_session() as session:
        return session.get_one(Send, send_id)


def suppression_reason(send_id: int) -> SuppressionReason | None:
    with db.read_only_session() as session:
        return suppression.reason_for(session, session.get_one(Send, send_id).address)


def counts_by_type() -> dict[str, int]:
    with db.read_only_session() as session:
        rows = session.execute(
            select(FeedbackCount.feedback_type, func.sum(FeedbackCount.count)).group_by(FeedbackCount.feedback_type)
        )
        return {finding.value: int(count) for finding, count in rows}


def dsn_for(send_id: int, status: str = "5.1.1", diagnostic: str = "smtp; 550 refused", **options: str) -> str:
    address = send_of(send_id).address
    return dsn_report(status, diagnostic, final=f"rfc822; {address}", **options)(send_id)  # type: ignore[arg-type]


def test_a_late_hard_bounce_lowers_delivered_and_suppresses(database: Engine, frozen: FrozenClock) -> None:
    activity_id, [send_id, other_id] = make_sends(2)
    frozen.at += timedelta(hours=2)
    deliver_report(dsn_for(send_id))
    send = send_of(send_id)
    assert (send.state, send.reason, send.bounced_at) == (SendState.BOUNCED, "hard", frozen.at)
    assert send.sent_at == frozen.at - timedelta(hours=2)
    assert send.reply == "550 refused"
    assert suppression_reason(send_id) is SuppressionReason.BOUNCED
    assert suppression_reason(other_id) is None
    with db.read_only_session() as session:
        assert progress.count_by_state(session, activity_id) == {SendState.SENT: 1, SendState.BOUNCED: 1}
    assert counts_by_type() == {"hard": 1}
    assert maildir.count_waiting() == 0


def test_a_repeated_report_counts_once(database: Engine, frozen: FrozenClock) -> None:
    _, [send_id] = make_sends()
    raw = dsn_for(send_id)
    deliver_report(raw)
    deliver_report(raw)  # an identical copy
    deliver_report("Received: by another hop\n" + raw)  # the same report through another server
    deliver_report(raw.replace("Message-ID: <d", "Message-ID: <other"))  # another report about the same send
    with db.read_only_session() as session:
        assert session.scalar(select(func.count(Feedback.id))) == 2
    assert counts_by_type() == {"hard": 2, "repeated": 2}
    assert send_of(send_id).state is SendState.BOUNCED


def test_policy_bounces_never_suppress(database: Engine, frozen: FrozenClock) -> None:
    _, [send_id] = make_sends()
    for number in range(8):
        frozen.at += timedelta(days=3)
        deliver_report(dsn_for(send_id, "5.7.1", "smtp; 550 5.7.1 blocked").replace("<d", f"<{number}d"))
    assert (send_of(send_id).state, send_of(send_id).reason) == (SendState.BOUNCED, "policy")
    assert suppression_reason(send_id) is None


@pytest.mark.parametrize(("days", "count", "suppressed"), [(2, 5, True), (1, 5, False), (2, 4, False), (30, 5, False)])
def test_soft_bounces_suppress_by_number_over_time(
    database: Engine, frozen: FrozenClock, days: int, count: int, suppressed: bool
) -> None:
    address = "full@reader.example"
    with db.transaction() as session:
        contact_id = make_contact(session, email=address).id
    last = 0
    for _ in range(count):
        _, [last] = make_sends()
        with db.transaction() as session:
            send = session.get_one(Send, last)
            send.address, send.contact_id, send.recipient_key = address, contact_id, f"c:{contact_id}"
        deliver_report(dsn_for(last, "5.2.2", "smtp; 552 5.2.2 full"))
        deliver_report(dsn_for(last, "5.2.2", "smtp; 552 5.2.2 full").replace("<d", "<again"))  # one mail counts once
        frozen.at += timedelta(days=days)
    assert (suppression_reason(last) is SuppressionReason.BOUNCED) is suppressed
    if suppressed:  # After the suppression is lifted, the old bounces do not count again.
        with db.transaction() as session:
            suppression_row = session.scalars(select(Suppression).where(Suppression.address == address)).one()
            suppression.lift(session, SYSTEM, suppression_row.id, "has room again")
        _, [last] = make_sends()
        with db.transaction() as session:
            session.get_one(Send, last).address = address
        deliver_report(dsn_for(last, "5.2.2", "smtp; 552 5.2.2 full"))
        assert suppression_reason(last) is None


def test_a_mailbox_disabled_twice_is_suppressed(database: Engine, frozen: FrozenClock) -> None:
    with db.transaction() as session:
        make_contact(session, email="off@reader.example")
    for suppressed in (None, SuppressionReason.BOUNCED):
        _, [send_id] = make_sends()
        with db.transaction() as session:
            session.get_one(Send, send_id).address = "off@reader.example"
        deliver_report(dsn_for(send_id, "5.2.1", "smtp; 550 5.2.1 disabled"))
        assert suppression_reason(send_id) is suppressed


def test_a_complaint_suppresses_and_withdraws_consent(database: Engine, frozen: FrozenClock) -> None:
    activity_id, [send_id] = make_sends()
    frozen.at += timedelta(minutes=5)
    deliver_report(SAMPLES["complaint, redacted to headers"].raw(send_id))
    send = send_of(send_id)
    assert (send.state, send.complained_at) == (SendState.SENT, frozen.at)
    assert suppression_reason(send_id) is SuppressionReason.COMPLAINED
    with db.read_only_session() as session:
        assert record.count_complaints(session, activity_id) == 1
        levels = consent.levels_as_of(session, [send.contact_id or 0], ConsentPurpose.EMAIL, frozen.at)
        assert set(levels.values()) == {ConsentLevel.NONE}


@pytest.mark.parametrize(
    "name",
    [
        "out of office",
        "postfix, still trying",
        "postfix, delivered",
        "not spam after all",
        "a person writes",
        "a forged token",
        "somebody else's bounce",
    ],
)
def test_reports_without_effect_are_counted(database: Engine, frozen: FrozenClock, name: str) -> None:
    _, [send_id] = make_sends()
    deliver_report(SAMPLES[name].raw(send_id))
    assert send_of(send_id).state is SendState.SENT
    assert suppression_reason(send_id) is None
    assert counts_by_type() == {SAMPLES[name].feedback_type: 1}
    with db.read_only_session() as session:
        message = session.scalars(select(InboundMessage)).one()
        assert (message.raw is not None) == (SAMPLES[name].feedback_type in ("unreadable", "forged", "foreign"))


def test_a_bounce_from_behind_a_forwarding_address_is_soft(database: Engine, frozen: FrozenClock) -> None:
    _, [send_id] = make_sends()
    deliver_report(SAMPLES["behind a forwarding address"].raw(send_id))
    assert (send_of(send_id).state, send_of(send_id).reason) == (SendState.BOUNCED, "soft")
    assert suppression_reason(send_id) is None


def test_an_unknown_send_is_settled_by_its_bounce(database: Engine, frozen: FrozenClock) -> None:
    _, [send_id] = make_sends(state=SendState.UNKNOWN)
    deliver_report(dsn_for(send_id))
    assert (send_of(send_id).state, send_of(send_id).sent_at) == (SendState.BOUNCED, frozen.at)


def test_a_bounce_before_the_send_result_waits(database: Engine, frozen: FrozenClock) -> None:
    _, [send_id] = make_sends(state=SendState.SENDING)
    deliver_report(dsn_for(send_id))
    assert send_of(send_id).state is SendState.SENDING
    with db.transaction() as session:
        session.get_one(Send, send_id).state = SendState.SENT
    frozen.at += timedelta(seconds=6)
    process_reports()
    assert send_of(send_id).state is SendState.BOUNCED
    assert counts_by_type() == {"hard": 1}


def test_erasure_removes_the_address_from_bounces(database: Engine, frozen: FrozenClock) -> None:
    _, [send_id] = make_sends()
    address = send_of(send_id).address
    deliver_report(dsn_for(send_id, diagnostic=f"smtp; 550 <{address}> unknown"))
    deliver_report(f"From: mailer-daemon@x.example\nSubject: failure notice\n\n{address}: 550 unknown\n")
    with db.transaction() as session:
        erasure.erase_contact(session, SYSTEM, session.get_one(Send, send_id).contact_id or 0)
    with db.read_only_session() as session:
        assert session.scalars(select(Feedback.address)).all() == [ERASED_ADDRESS]
        for table in ("feedback", "inbound_messages"):
            assert address not in str(session.execute(text(f"SELECT * FROM {table}")).all())
    deliver_report(dsn_for(send_id).replace("<d", "<late"))
    assert counts_by_type()["hard"] == 2


def test_the_circuit_breaker_pauses_a_launch(database: Engine, frozen: FrozenClock) -> None:
    activity_id, ids = make_sends(300)
    with db.transaction() as session:
        session.get_one(Activity, activity_id).status = ActivityStatus.LIVE
    deliver_report(SAMPLES["complaint, whole mail"].raw(ids[0]))
    with db.read_only_session() as session:
        assert session.get_one(Activity, activity_id).status is ActivityStatus.PAUSED
        rates = circuit_breaker.trip_rates(session, activity_id)
    assert rates is not None
    assert (rates.exceeded_limit, rates.complained) == ("complaints", 1)


def test_a_failing_message_does_not_block_the_others(
    database: Engine, frozen: FrozenClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, ids = make_sends(3)
    broken = ids[1]

    def failing_parse(raw: bytes) -> ParsedBounce:
        notice = parse(raw)
        if notice.send_id == broken:
            raise RuntimeError("a mistake of ours")
        return notice

    monkeypatch.setattr("campaigns.delivery.bounces.parsing.parser.parse", failing_parse)
    for one in ids:
        maildir.store_mail(dsn_for(one).encode(), FeedbackSource.MTA)
    maildir.move_to_queue()
    queue.process_due()
    assert [send_of(one).state for one in ids] == [SendState.BOUNCED, SendState.SENT, SendState.BOUNCED]
    monkeypatch.undo()
    frozen.at += timedelta(minutes=1)
    process_reports()
    assert send_of(broken).state is SendState.BOUNCED


def test_unreadable_messages_are_deleted_after_thirty_days(database: Engine, frozen: FrozenClock) -> None:
    deliver_report("Subject: hello\n\nhello")
    frozen.at += timedelta(days=29)
    queue.delete_old()
    with db.read_only_session() as session:
        assert session.scalars(select(InboundMessage.feedback_type)).all() == [FeedbackType.UNREADABLE]
    frozen.at += timedelta(days=2)
    queue.delete_old()
    with db.read_only_session() as session:
        assert session.scalars(select(InboundMessage)).all() == []
