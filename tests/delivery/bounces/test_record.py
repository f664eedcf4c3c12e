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
from campaigns.delivery.bounces.parsing.parser import ParsedBounce, read
from campaigns.delivery.models import ERASED, Send, SendState
from campaigns.delivery.sends import progress
from campaigns.planning.models import Activity, ActivityStatus
from tests.conftest import FrozenClock
from tests.delivery.bounces.corpus import CORPUS, report
from tests.delivery.launched_activity import make_mailing
from tests.factories import make_contact

SHAPES = {shape.name: shape for shape in CORPUS}


def mailed(people: int = 1, state: SendState = SendState.SENT) -> tuple[int, list[int]]:
    """Make a live activity of sends in ``state``; return (activity id, send ids)."""
    from campaigns.delivery.queue.expansion import expand

    with db.transaction() as session:
        activity_id = make_mailing(session, people).id
    expand(activity_id)
    with db.transaction() as session:
        found = list(session.scalars(select(Send).where(Send.activity_id == activity_id).order_by(Send.id)))
        for send in found:
            send.state, send.sent_at, send.due_at = state, clock.now() if state is SendState.SENT else None, None
        return activity_id, [send.id for send in found]


def came(raw: str | bytes, way: FeedbackSource = FeedbackSource.MTA) -> None:
    maildir.keep(raw if isinstance(raw, bytes) else raw.encode(), way)
    settle()


def settle() -> None:
    while maildir.take_in() + queue.settle_due():
        pass


def send_of(send_id: int) -> Send:
    with db.reading() as session:
        return session.get_one(Send, send_id)


def reason_for(send_id: int) -> SuppressionReason | None:
    with db.reading() as session:
        return suppression.reason_for(session, session.get_one(Send, send_id).address)


def tallies() -> dict[str, int]:
    with db.reading() as session:
        rows = session.execute(
            select(FeedbackCount.feedback_type, func.sum(FeedbackCount.count)).group_by(FeedbackCount.feedback_type)
        )
        return {finding.value: int(count) for finding, count in rows}


def bounce(send_id: int, status: str = "5.1.1", said: str = "smtp; 550 refused", **more: str) -> str:
    to = send_of(send_id).address
    return report(status, said, final=f"rfc822; {to}", **more)(send_id)  # type: ignore[arg-type]


def test_a_late_hard_bounce_lowers_delivered_and_suppresses(database: Engine, frozen: FrozenClock) -> None:
    activity_id, [one, other] = mailed(2)
    frozen.at += timedelta(hours=2)
    came(bounce(one))
    send = send_of(one)
    assert (send.state, send.reason, send.bounced_at) == (SendState.BOUNCED, "hard", frozen.at)
    assert send.sent_at == frozen.at - timedelta(hours=2)
    assert send.reply == "550 refused"
    assert reason_for(one) is SuppressionReason.BOUNCED
    assert reason_for(other) is None
    with db.reading() as session:
        assert progress.counts(session, activity_id) == {SendState.SENT: 1, SendState.BOUNCED: 1}
    assert tallies() == {"hard": 1}
    assert maildir.waiting() == 0


def test_the_same_notice_counts_once_however_it_comes(database: Engine, frozen: FrozenClock) -> None:
    _, [one] = mailed()
    raw = bounce(one)
    came(raw)
    came(raw)  # an identical copy
    came("Received: by another hop\n" + raw)  # the same report through another server
    came(raw.replace("Message-ID: <d", "Message-ID: <other"))  # another report about the same send
    with db.reading() as session:
        assert session.scalar(select(func.count(Feedback.id))) == 2
    assert tallies() == {"hard": 2, "repeated": 2}
    assert send_of(one).state is SendState.BOUNCED


def test_policy_never_suppresses_the_person(database: Engine, frozen: FrozenClock) -> None:
    _, [one] = mailed()
    for number in range(8):
        frozen.at += timedelta(days=3)
        came(bounce(one, "5.7.1", "smtp; 550 5.7.1 blocked").replace("<d", f"<{number}d"))
    assert (send_of(one).state, send_of(one).reason) == (SendState.BOUNCED, "policy")
    assert reason_for(one) is None


@pytest.mark.parametrize(("days", "count", "suppressed"), [(2, 5, True), (1, 5, False), (2, 4, False), (30, 5, False)])
def test_soft_bounces_suppress_by_number_over_time(
    database: Engine, frozen: FrozenClock, days: int, count: int, suppressed: bool
) -> None:
    address = "full@reader.example"
    with db.transaction() as session:
        contact_id = make_contact(session, email=address).id
    last = 0
    for _ in range(count):
        _, [last] = mailed()
        with db.transaction() as session:
            send = session.get_one(Send, last)
            send.address, send.contact_id, send.recipient_key = address, contact_id, f"c:{contact_id}"
        came(bounce(last, "5.2.2", "smtp; 552 5.2.2 full"))
        came(bounce(last, "5.2.2", "smtp; 552 5.2.2 full").replace("<d", "<again"))  # one mail counts once
        frozen.at += timedelta(days=days)
    assert (reason_for(last) is SuppressionReason.BOUNCED) is suppressed
    if suppressed:  # After the suppression is lifted, the old bounces do not count again.
        with db.transaction() as session:
            found = session.scalars(select(Suppression).where(Suppression.address == address)).one()
            suppression.lift(session, SYSTEM, found.id, "has room again")
        _, [last] = mailed()
        with db.transaction() as session:
            session.get_one(Send, last).address = address
        came(bounce(last, "5.2.2", "smtp; 552 5.2.2 full"))
        assert reason_for(last) is None


def test_switched_off_twice_is_for_good(database: Engine, frozen: FrozenClock) -> None:
    with db.transaction() as session:
        make_contact(session, email="off@reader.example")
    for suppressed in (None, SuppressionReason.BOUNCED):
        _, [one] = mailed()
        with db.transaction() as session:
            session.get_one(Send, one).address = "off@reader.example"
        came(bounce(one, "5.2.1", "smtp; 550 5.2.1 disabled"))
        assert reason_for(one) is suppressed


def test_a_complaint_suppresses_and_takes_the_consent_back(database: Engine, frozen: FrozenClock) -> None:
    activity_id, [one] = mailed()
    frozen.at += timedelta(minutes=5)
    came(SHAPES["complaint, redacted to headers"].raw(one))
    send = send_of(one)
    assert (send.state, send.complained_at) == (SendState.SENT, frozen.at)
    assert reason_for(one) is SuppressionReason.COMPLAINED
    with db.reading() as session:
        assert record.complaints_of(session, activity_id) == 1
        levels = consent.as_of(session, [send.contact_id or 0], ConsentPurpose.EMAIL, frozen.at)
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
def test_what_changes_nothing_is_counted(database: Engine, frozen: FrozenClock, name: str) -> None:
    _, [one] = mailed()
    came(SHAPES[name].raw(one))
    assert send_of(one).state is SendState.SENT
    assert reason_for(one) is None
    assert tallies() == {SHAPES[name].finding: 1}
    with db.reading() as session:
        kept = session.scalars(select(InboundMessage)).one()
        assert (kept.raw is not None) == (SHAPES[name].finding in ("unreadable", "forged", "foreign"))


def test_a_bounce_from_behind_a_forwarding_address_is_soft(database: Engine, frozen: FrozenClock) -> None:
    _, [one] = mailed()
    came(SHAPES["behind a forwarding address"].raw(one))
    assert (send_of(one).state, send_of(one).reason) == (SendState.BOUNCED, "soft")
    assert reason_for(one) is None


def test_an_unknown_send_is_settled_by_its_bounce(database: Engine, frozen: FrozenClock) -> None:
    _, [one] = mailed(state=SendState.UNKNOWN)
    came(bounce(one))
    assert (send_of(one).state, send_of(one).sent_at) == (SendState.BOUNCED, frozen.at)


def test_a_bounce_that_is_faster_than_its_send_waits(database: Engine, frozen: FrozenClock) -> None:
    _, [one] = mailed(state=SendState.SENDING)
    came(bounce(one))
    assert send_of(one).state is SendState.SENDING
    with db.transaction() as session:
        session.get_one(Send, one).state = SendState.SENT
    frozen.at += timedelta(seconds=6)
    settle()
    assert send_of(one).state is SendState.BOUNCED
    assert tallies() == {"hard": 1}


def test_an_erased_persons_bounces_name_nobody(database: Engine, frozen: FrozenClock) -> None:
    _, [one] = mailed()
    address = send_of(one).address
    came(bounce(one, said=f"smtp; 550 <{address}> unknown"))
    came(f"From: mailer-daemon@x.example\nSubject: failure notice\n\n{address}: 550 unknown\n")
    with db.transaction() as session:
        erasure.erase_contact(session, SYSTEM, session.get_one(Send, one).contact_id or 0)
    with db.reading() as session:
        assert session.scalars(select(Feedback.address)).all() == [ERASED]
        for table in ("feedback", "inbound_messages"):
            assert address not in str(session.execute(text(f"SELECT * FROM {table}")).all())
    came(bounce(one).replace("<d", "<late"))
    assert tallies()["hard"] == 2


def test_a_launch_that_draws_complaints_pauses_itself(database: Engine, frozen: FrozenClock) -> None:
    activity_id, ids = mailed(300)
    with db.transaction() as session:
        session.get_one(Activity, activity_id).status = ActivityStatus.LIVE
    came(SHAPES["complaint, whole mail"].raw(ids[0]))
    with db.reading() as session:
        assert session.get_one(Activity, activity_id).status is ActivityStatus.PAUSED
        told = circuit_breaker.told(session, activity_id)
    assert told is not None
    assert (told.why, told.complained) == ("complaints", 1)


def test_one_that_breaks_us_holds_up_no_other(
    database: Engine, frozen: FrozenClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, ids = mailed(3)
    broken = ids[1]

    def reading(raw: bytes) -> ParsedBounce:
        notice = read(raw)
        if notice.send_id == broken:
            raise RuntimeError("a mistake of ours")
        return notice

    monkeypatch.setattr("campaigns.delivery.bounces.parsing.parser.read", reading)
    for one in ids:
        maildir.keep(bounce(one).encode(), FeedbackSource.MTA)
    maildir.take_in()
    queue.settle_due()
    assert [send_of(one).state for one in ids] == [SendState.BOUNCED, SendState.SENT, SendState.BOUNCED]
    monkeypatch.undo()
    frozen.at += timedelta(minutes=1)
    settle()
    assert send_of(broken).state is SendState.BOUNCED


def test_what_was_not_understood_is_forgotten_after_thirty_days(database: Engine, frozen: FrozenClock) -> None:
    came("Subject: hello\n\nhello")
    frozen.at += timedelta(days=29)
    queue.forget_old()
    with db.reading() as session:
        assert session.scalars(select(InboundMessage.feedback_type)).all() == [FeedbackType.UNREADABLE]
    frozen.at += timedelta(days=2)
    queue.forget_old()
    with db.reading() as session:
        assert session.scalars(select(InboundMessage)).all() == []
