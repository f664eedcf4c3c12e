"""Tests against a misbehaving relay: each mail in transit gets the result that matches how far it got."""

import asyncio
import time

import pytest
from sqlalchemy import Engine

from campaigns import config
from campaigns.delivery.smtp import connection
from campaigns.delivery.worker.worker import deliver
from tests.delivery.fake_relay import DROP, EHLO, HANG, MailQueue, Reply, make_mails, run_fake_relay, send_mails
from tests.delivery.launched_activity import count_states, load_sends
from tests.delivery.worker.test_worker import launch_mailing

WITH_AND_WITHOUT_PIPELINING = pytest.mark.parametrize("ehlo", [EHLO, b"250 plain"], ids=["grouped", "lock-step"])


def on_second_mail(answer: bytes, else_: bytes) -> Reply:
    return lambda number: answer if number == 1 else else_


@WITH_AND_WITHOUT_PIPELINING
@pytest.mark.parametrize("dot", [b"what?", b"354 more", b"999 huh", b"100 wait", DROP])
def test_invalid_reply_to_final_dot_is_unknown(settings: config.Settings, dot: bytes, ehlo: bytes) -> None:
    """It is unknown whether the mail was accepted, so it is not resent; the other mails are not affected."""
    with run_fake_relay(settings, dot=on_second_mail(dot, b"250 ok"), ehlo=ehlo):
        mail_queue = send_mails(make_mails(4))
    assert mail_queue.statuses == ["sent", "unknown"]
    assert len(mail_queue.dots) == 2
    assert len(mail_queue.given_back) + len(mail_queue.mails) == 2


@WITH_AND_WITHOUT_PIPELINING
@pytest.mark.parametrize(
    ("word", "answer", "statuses"),
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
def test_connection_end_before_final_dot(
    settings: config.Settings, word: str, answer: bytes, statuses: list[str], ehlo: bytes
) -> None:
    usual = b"354 go" if word == "data" else b"250 ok"
    with run_fake_relay(settings, ehlo=ehlo, **{word: on_second_mail(answer, usual)}) as relay:
        mail_queue = send_mails(make_mails(3))
    assert mail_queue.statuses == statuses
    assert mail_queue.dots == ["n0@example.net"]
    assert len(relay.contents) == 1
    assert len(mail_queue.outcomes) + len(mail_queue.given_back) + len(mail_queue.mails) == 3


@WITH_AND_WITHOUT_PIPELINING
@pytest.mark.parametrize(
    ("word", "answer", "status"),
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
def test_rejection_affects_one_mail(
    settings: config.Settings, word: str, answer: bytes, status: str, ehlo: bytes
) -> None:
    usual = b"354 go" if word == "data" else b"250 ok"
    with run_fake_relay(settings, ehlo=ehlo, **{word: on_second_mail(answer, usual)}) as relay:
        mail_queue = send_mails(make_mails(4))
    assert [mail_queue.outcomes[f"n{number}@example.net"].status.value for number in range(4)] == [
        "sent",
        status,
        "sent",
        "sent",
    ]
    # DATA accepted without a valid recipient was ended with a lone dot, which gives an empty content.
    assert [content for content in relay.contents if content] == [b"Subject: x\r\n\r\nbody\r\n"] * (3 + (word == "dot"))


def test_rejected_recipient_and_data(settings: config.Settings) -> None:
    no = on_second_mail(b"554 5.5.1 no valid recipients", b"354 go")
    with run_fake_relay(settings, rcpt=on_second_mail(b"550 5.1.1 no", b"250 ok"), data=no) as relay:
        mail_queue = send_mails(make_mails(3))
    assert [mail_queue.outcomes[f"n{number}@example.net"].status.value for number in range(3)] == [
        "sent",
        "no_such_recipient",
        "sent",
    ]
    assert b"RSET" in relay.commands


@WITH_AND_WITHOUT_PIPELINING
def test_replies_in_single_octets(settings: config.Settings, ehlo: bytes) -> None:
    with run_fake_relay(settings, ehlo=ehlo, bytewise=True, dot=b"250-2.0.0 yes\r\n250 2.0.0 taken"):
        mail_queue = send_mails(make_mails(3))
    assert [outcome.reply for outcome in mail_queue.outcomes.values()] == ["250 2.0.0 yes 2.0.0 taken"] * 3


def test_reply_before_connection_end_counts(settings: config.Settings) -> None:
    with run_fake_relay(settings, dot=b"250 ok\r\n421 and goodbye"):
        mail_queue = send_mails(make_mails(2))
    assert mail_queue.statuses == ["sent"]
    assert mail_queue.given_back == ["n1@example.net"]


@pytest.mark.parametrize(("word", "statuses"), [("mail", []), ("rcpt", ["connection_lost"]), ("dot", ["unknown"])])
def test_reply_timeout(
    settings: config.Settings, word: str, statuses: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("COMMAND_TIMEOUT", "DATA_TIMEOUT", "BLOCK_TIMEOUT", "FINAL_DOT_TIMEOUT"):
        monkeypatch.setattr(connection, name, 0.5)
    monkeypatch.setattr(connection, "_CHECK_INTERVAL", 0.02)
    with run_fake_relay(settings, **{word: HANG}):
        assert send_mails(make_mails(1)).statuses == statuses


def test_stopped_process_does_not_time_out(settings: config.Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    """Time in which the process is stopped or the machine asleep does not count towards the timeout."""
    monkeypatch.setattr(connection, "FINAL_DOT_TIMEOUT", 1.5)
    monkeypatch.setattr(connection, "_CHECK_INTERVAL", 0.05)

    def answer(_number: int) -> bytes:
        time.sleep(2.3)
        return b"250 ok"

    def stopped(_mail_queue: MailQueue, _job: object) -> None:
        asyncio.get_running_loop().call_later(0.2, time.sleep, 2.0)

    monkeypatch.setattr(MailQueue, "before_dot", stopped)
    with run_fake_relay(settings, dot=answer):
        assert send_mails(make_mails(1)).statuses == ["sent"]


def test_endless_reply(settings: config.Settings) -> None:
    with run_fake_relay(settings, dot=b"\r\n".join([b"250-more"] * 300)):
        assert send_mails(make_mails(1)).statuses == ["unknown"]


@pytest.mark.parametrize("word", [b"taken \x00 as \x1b[31m 7", b"\xff\xfe"], ids=["control", "latin"])
def test_reply_with_control_bytes_is_stored(database: Engine, settings: config.Settings, word: bytes) -> None:
    activity_id = launch_mailing(2)
    with run_fake_relay(settings, dot=b"250 " + word):
        deliver(activity_id)
    assert count_states(activity_id) == {"sent": 2}
    assert load_sends(activity_id)[0].reply.isprintable()


def test_rejection_with_control_bytes_is_a_rejection(database: Engine, settings: config.Settings) -> None:
    activity_id = launch_mailing(2)
    with run_fake_relay(settings, rcpt=b"550 5.1.1 \x00 no such user"):
        deliver(activity_id)
    assert count_states(activity_id) == {"bounced": 2}
