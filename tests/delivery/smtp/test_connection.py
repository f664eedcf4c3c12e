"""Tests of the SMTP connection: reply classification, relay addresses, command sequences."""

import dataclasses

import pytest

from campaigns import config
from campaigns.delivery.smtp.address import RelayAddress, TlsMode, relay_from_settings
from campaigns.delivery.smtp.handshake import RelayUnavailable
from campaigns.delivery.smtp.replies import DeliveryStatus, classify
from campaigns.mail_catcher.smtp_server import Faults
from campaigns.mail_catcher.store import MailStore
from tests.delivery.fake_relay import make_mail, make_mails, run_fake_relay, send_mails

REPLIES = [
    (550, "5.1.1 no such user", DeliveryStatus.NO_SUCH_RECIPIENT),
    (550, "5.1.2 bad domain", DeliveryStatus.NO_SUCH_RECIPIENT),
    (550, "5.1.10 null mx", DeliveryStatus.NO_SUCH_RECIPIENT),
    (550, "No such user here", DeliveryStatus.NO_SUCH_RECIPIENT),
    (550, "5.7.1 spam, user unknown to us", DeliveryStatus.SENDER_REJECTED),
    (554, "5.7.26 unauthenticated", DeliveryStatus.SENDER_REJECTED),
    (530, "authentication required", DeliveryStatus.SENDER_REJECTED),
    (552, "5.2.2 mailbox full", DeliveryStatus.REJECTED),
    (550, "5.2.1 disabled", DeliveryStatus.REJECTED),
    (554, "transaction failed", DeliveryStatus.REJECTED),
    (451, "4.7.1 greylisted", DeliveryStatus.DEFERRED),
    (421, "4.3.2 shutting down", DeliveryStatus.DEFERRED),
]


@pytest.mark.parametrize(("code", "text", "status"), REPLIES)
def test_classification(code: int, text: str, status: DeliveryStatus) -> None:
    assert classify(code, text) is status


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("smtp://127.0.0.1:2525", ("127.0.0.1", 2525, TlsMode.OFF)),
        ("smtp://localhost", ("localhost", 25, TlsMode.OFF)),
        ("smtp://relay.example", ("relay.example", 25, TlsMode.VERIFY)),
        ("smtp://relay.example?tls=off", ("relay.example", 25, TlsMode.OFF)),
        ("smtps://u%40x:p%3A@relay.example", ("relay.example", 465, TlsMode.IMPLICIT)),
    ],
)
def test_relay_from_settings(settings: config.Settings, url: str, expected: tuple[str, int, TlsMode]) -> None:
    config.set_settings(dataclasses.replace(settings, smtp_url=url))
    relay = relay_from_settings()
    assert (relay.host, relay.port, relay.tls) == expected
    if "u%40x" in url:
        assert (relay.user, relay.password) == ("u@x", "p:")


def test_dot_stuffing_and_calls_before_dot(catcher: int, faults: Faults) -> None:
    faults["no@example.net"] = ["550 5.1.1 no"]
    faults["gone@example.net"] = ["drop before"]
    content = b"Subject: x\r\n\r\n.dot\r\n..\r\nend\r\n"
    people = ("no@example.net", "yes@example.net", "é@example.net", "gone@example.net", "left@example.net")
    mail_queue = send_mails([make_mail(address, content) for address in people])
    assert mail_queue.statuses == ["no_such_recipient", "sent", "sent", "connection_lost"]
    assert mail_queue.dots == ["yes@example.net", "é@example.net"]
    assert [job.recipient for job in mail_queue.mails] == ["left@example.net"]
    kept = MailStore().mail(1)
    assert kept is not None
    assert kept.raw.endswith(b".dot\r\n..\r\nend\r\n")


def test_connection_refused(settings: config.Settings) -> None:
    with pytest.raises(RelayUnavailable, match="refused"):
        send_mails([])


def test_pipelining_command_sequence(settings: config.Settings) -> None:
    with run_fake_relay(settings) as relay:
        mail_queue = send_mails(make_mails(3))
    assert mail_queue.statuses == ["sent"] * 3
    relay.threads[0].join(10)
    assert [word[:4] for word in relay.commands] == [b"EHLO", *[b"MAIL", b"RCPT", b"DATA"] * 3, b"QUIT"]
    assert relay.commands[1] == b"MAIL FROM:<b+x@example.org> SIZE=20"


def test_command_sequence_without_pipelining(settings: config.Settings) -> None:
    with run_fake_relay(settings, ehlo=b"250 plain", rcpt=lambda n: b"550 5.1.1 no" if n == 1 else b"250 ok") as relay:
        mail_queue = send_mails(make_mails(3))
    assert mail_queue.statuses == ["sent", "no_such_recipient", "sent"]
    assert [word[:4] for word in relay.commands][4:8] == [b"MAIL", b"RCPT", b"RSET", b"MAIL"]


def test_falls_back_to_helo(settings: config.Settings) -> None:
    with run_fake_relay(settings, ehlo=b"502 what?") as relay:
        assert send_mails(make_mails(2)).statuses == ["sent", "sent"]
    assert relay.commands[1].startswith(b"HELO ")


@pytest.mark.parametrize(
    ("ehlo", "one", "reply"),
    [
        (b"250 plain", make_mail("é@example.net"), "553 5.6.7"),
        (b"250-x\r\n250 SIZE 10", make_mail("a@example.net"), "552 5.3.4"),
        (b"250 plain", make_mail("a@example.net", "é\r\n".encode()), "554 5.6.3"),
        (b"250 plain", make_mail("a@x> SIZE=1"), "an address"),
    ],
)
def test_mail_beyond_capabilities_is_not_offered(
    settings: config.Settings, ehlo: bytes, one: object, reply: str
) -> None:
    with run_fake_relay(settings, ehlo=ehlo) as relay:
        mail_queue = send_mails([one])  # type: ignore[list-item]
    assert [outcome.reply.startswith(reply) for outcome in mail_queue.outcomes.values()] == [True]
    assert [word[:4] for word in relay.commands] in ([b"EHLO"], [b"EHLO", b"QUIT"])


def test_8bit_and_utf8_are_announced(settings: config.Settings) -> None:
    with run_fake_relay(settings, ehlo=b"250-x\r\n250-8BITMIME\r\n250 SMTPUTF8") as relay:
        assert send_mails([make_mail("é@example.net", "é\r\n".encode())]).statuses == ["sent"]
    assert relay.commands[1].endswith(b" BODY=8BITMIME SMTPUTF8") or relay.commands[1].endswith(
        b" SMTPUTF8 BODY=8BITMIME"
    )


def test_mails_per_connection_limit(settings: config.Settings) -> None:
    with run_fake_relay(settings) as relay:
        address = RelayAddress("127.0.0.1", relay.port, tls=TlsMode.OFF, per_connection=2)
        mail_queue = send_mails(make_mails(5), address)
    assert mail_queue.statuses == ["sent"] * 2
    assert len(mail_queue.mails) == 3


def test_stopped_mail_is_given_back(settings: config.Settings) -> None:
    with run_fake_relay(settings) as relay:
        mail_queue = send_mails(make_mails(2), sending_allowed=False)
    assert (mail_queue.outcomes, mail_queue.dots, mail_queue.given_back) == (
        {},
        [],
        ["n1@example.net", "n0@example.net"],
    )
    assert relay.contents == []


def test_missing_starttls_is_refused(settings: config.Settings) -> None:
    with run_fake_relay(settings) as relay, pytest.raises(RelayUnavailable, match="STARTTLS"):
        send_mails(make_mails(1), RelayAddress("127.0.0.1", relay.port, tls=TlsMode.VERIFY))
    assert [word[:4] for word in relay.commands] == [b"EHLO"]


def test_no_authentication_without_tls(settings: config.Settings) -> None:
    relay = RelayAddress("192.0.2.1", 25, "me", "secret", TlsMode.OFF)
    with run_fake_relay(settings) as strange:
        loopback = dataclasses.replace(relay, host="127.0.0.1", port=strange.port)
        with pytest.raises(RelayUnavailable, match="502"):
            send_mails(make_mails(1), loopback)
    assert strange.commands[1] == b"AUTH PLAIN AG1lAHNlY3JldA=="


@pytest.mark.parametrize("greeting", [b"554 not you", b"421 busy", b"what", b"<drop>"])
def test_invalid_greeting(settings: config.Settings, greeting: bytes) -> None:
    with run_fake_relay(settings, greeting=greeting), pytest.raises(RelayUnavailable):
        send_mails(make_mails(1))
