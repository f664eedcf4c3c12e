"""Tests against a misbehaving relay: each mail in transit gets the result that matches how far it got."""

import asyncio
import time

import pytest
from sqlalchemy import Engine

from campaigns import config
from campaigns.delivery.smtp import connection
from campaigns.delivery.worker.worker import deliver
from tests.delivery.fake_relay import DROP, EHLO, HANG, Answer, Shelf, answering, mails, posted
from tests.delivery.launched_activity import sends, states
from tests.delivery.worker.test_worker import launched

PIPELINED = pytest.mark.parametrize("ehlo", [EHLO, b"250 plain"], ids=["grouped", "lock-step"])


def second(answer: bytes, else_: bytes) -> Answer:
    return lambda number: answer if number == 1 else else_


@PIPELINED
@pytest.mark.parametrize("dot", [b"what?", b"354 more", b"999 huh", b"100 wait", DROP])
def test_no_answer_to_the_dot_that_says_anything(settings: config.Settings, dot: bytes, ehlo: bytes) -> None:
    """It is unknown whether the mail was accepted, so it is not resent; the other mails are not affected."""
    with answering(settings, dot=second(dot, b"250 ok"), ehlo=ehlo):
        shelf = posted(mails(4))
    assert shelf.fates == ["sent", "unknown"]
    assert len(shelf.dots) == 2
    assert len(shelf.returned) + len(shelf.mails) == 2


@PIPELINED
@pytest.mark.parametrize(
    ("word", "answer", "fates"),
    [
        ("mail", b"what?", ["sent"]),  # not attempted: another connection may send it
        ("mail", b"421 closing", ["sent"]),
        ("mail", DROP, ["sent"]),
        ("rcpt", b"what?", ["sent", "connection_lost"]),
        ("rcpt", b"354 go", ["sent", "connection_lost"]),
        ("rcpt", b"421 closing", ["sent", "connection_lost"]),
        ("rcpt", DROP, ["sent", "connection_lost"]),
        ("data", b"250 ok", ["sent", "connection_lost"]),
        ("data", b"xyz", ["sent", "connection_lost"]),
        ("data", b"421 closing", ["sent", "connection_lost"]),
        ("data", DROP, ["sent", "connection_lost"]),
    ],
)
def test_an_end_before_the_dot(
    settings: config.Settings, word: str, answer: bytes, fates: list[str], ehlo: bytes
) -> None:
    usual = b"354 go" if word == "data" else b"250 ok"
    with answering(settings, ehlo=ehlo, **{word: second(answer, usual)}) as relay:
        shelf = posted(mails(3))
    assert shelf.fates == fates
    assert shelf.dots == ["n0@example.net"]
    assert len(relay.taken) == 1
    assert len(shelf.outcomes) + len(shelf.returned) + len(shelf.mails) == 3


@PIPELINED
@pytest.mark.parametrize(
    ("word", "answer", "fate"),
    [
        ("mail", b"451 4.3.0 later", "deferred"),
        ("mail", b"550 5.1.1 who are you", "sender_rejected"),
        ("rcpt", b"550-5.1.1 no\r\n550 5.1.1 such user", "no_such_recipient"),
        ("rcpt", b"450 4.2.0 greylisted", "deferred"),
        ("data", b"554 5.7.1 policy", "sender_rejected"),
        ("data", b"451 later", "deferred"),
        ("dot", b"552 5.2.2 full", "rejected"),
        ("dot", b"451 4.3.0 later", "deferred"),
        ("dot", b"554 5.7.1 spam", "sender_rejected"),
    ],
)
def test_a_refusal_is_one_mails_own(
    settings: config.Settings, word: str, answer: bytes, fate: str, ehlo: bytes
) -> None:
    usual = b"354 go" if word == "data" else b"250 ok"
    with answering(settings, ehlo=ehlo, **{word: second(answer, usual)}) as relay:
        shelf = posted(mails(4))
    assert [shelf.outcomes[f"n{number}@example.net"].status.value for number in range(4)] == [
        "sent",
        fate,
        "sent",
        "sent",
    ]
    # DATA accepted without a valid recipient was ended with a lone dot, which gives an empty content.
    assert [content for content in relay.taken if content] == [b"Subject: x\r\n\r\nbody\r\n"] * (3 + (word == "dot"))


def test_nobody_there_and_data_refused(settings: config.Settings) -> None:
    no = second(b"554 5.5.1 no valid recipients", b"354 go")
    with answering(settings, rcpt=second(b"550 5.1.1 no", b"250 ok"), data=no) as relay:
        shelf = posted(mails(3))
    assert [shelf.outcomes[f"n{number}@example.net"].status.value for number in range(3)] == [
        "sent",
        "no_such_recipient",
        "sent",
    ]
    assert b"RSET" in relay.words


@PIPELINED
def test_answers_in_single_octets(settings: config.Settings, ehlo: bytes) -> None:
    with answering(settings, ehlo=ehlo, bytewise=True, dot=b"250-2.0.0 yes\r\n250 2.0.0 taken"):
        shelf = posted(mails(3))
    assert [outcome.reply for outcome in shelf.outcomes.values()] == ["250 2.0.0 yes 2.0.0 taken"] * 3


def test_an_answer_just_before_the_end_counts(settings: config.Settings) -> None:
    with answering(settings, dot=b"250 ok\r\n421 and goodbye"):
        shelf = posted(mails(2))
    assert shelf.fates == ["sent"]
    assert shelf.returned == ["n1@example.net"]


@pytest.mark.parametrize(("word", "fates"), [("mail", []), ("rcpt", ["connection_lost"]), ("dot", ["unknown"])])
def test_silence(settings: config.Settings, word: str, fates: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("COMMAND", "DATA", "BLOCK", "FINAL_DOT"):
        monkeypatch.setattr(connection, name, 0.5)
    monkeypatch.setattr(connection, "_LOOK", 0.02)
    with answering(settings, **{word: HANG}):
        assert posted(mails(1)).fates == fates


def test_a_process_that_was_stopped_has_not_waited(settings: config.Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    """Time in which the process is stopped or the machine asleep does not count towards the timeout."""
    monkeypatch.setattr(connection, "FINAL_DOT", 1.5)
    monkeypatch.setattr(connection, "_LOOK", 0.05)

    def answer(_number: int) -> bytes:
        time.sleep(2.3)
        return b"250 ok"

    def stopped(_shelf: Shelf, _job: object) -> None:
        asyncio.get_running_loop().call_later(0.2, time.sleep, 2.0)

    monkeypatch.setattr(Shelf, "before_dot", stopped)
    with answering(settings, dot=answer):
        assert posted(mails(1)).fates == ["sent"]


def test_an_answer_without_end(settings: config.Settings) -> None:
    with answering(settings, dot=b"\r\n".join([b"250-more"] * 300)):
        assert posted(mails(1)).fates == ["unknown"]


@pytest.mark.parametrize("word", [b"taken \x00 as \x1b[31m 7", b"\xff\xfe"], ids=["control", "latin"])
def test_an_answer_with_strange_bytes_is_kept(database: Engine, settings: config.Settings, word: bytes) -> None:
    activity_id = launched(2)
    with answering(settings, dot=b"250 " + word):
        deliver(activity_id)
    assert states(activity_id) == {"sent": 2}
    assert sends(activity_id)[0].reply.isprintable()


def test_a_refusal_with_strange_bytes_is_a_refusal(database: Engine, settings: config.Settings) -> None:
    activity_id = launched(2)
    with answering(settings, rcpt=b"550 5.1.1 \x00 no such user"):
        deliver(activity_id)
    assert states(activity_id) == {"bounced": 2}
