"""Tests of the mail catcher's SMTP server: it stores acknowledged mails and injects faults."""

import smtplib
from collections.abc import Iterator
from email import message_from_bytes, policy

import pytest

from campaigns.mail_catcher.smtp_server import Faults
from campaigns.mail_catcher.store import MailStore, running_catcher

MAIL = "From: a@example.org\r\nTo: b@example.net\r\nSubject: =?utf-8?B?U2Fsw7x0?=\r\n\r\nHello\r\n.dot\r\n"
FAULTS: Faults = {}


@pytest.fixture
def port() -> Iterator[int]:
    FAULTS.clear()
    with running_catcher(faults=FAULTS) as port:
        yield port


def send_mails(port: int, *recipients: str) -> None:
    with smtplib.SMTP("127.0.0.1", port) as client:
        for recipient in recipients:
            client.sendmail("a@example.org", [recipient], MAIL)


def test_stores_mails(port: int) -> None:
    send_mails(port, "b@example.net")
    (listed,) = MailStore().mails()
    assert (listed.recipient, listed.subject, listed.sender) == ("b@example.net", "Salüt", "a@example.org")
    stored = MailStore().mail(listed.id)
    assert stored is not None
    assert message_from_bytes(stored.raw, policy=policy.default).get_content() == "Hello\r\n.dot\r\n"
    assert MailStore().mail(99) is None


def test_lists_by_id_and_by_address(port: int) -> None:
    send_mails(port, *(f"p{n}@example.net" for n in range(5)), "un_der@example.net")
    newest = MailStore().mails(limit=2)
    assert [mail.id for mail in newest] == [6, 5]
    assert [mail.id for mail in MailStore().mails(before=5, limit=2)] == [4, 3]
    assert [mail.id for mail in MailStore().mails(after=2, limit=2)] == [4, 3]
    assert [mail.recipient for mail in MailStore().mails(address="un_d")] == ["un_der@example.net"]
    assert MailStore().mails(address="p%") == []


def test_injects_each_fault_once(port: int) -> None:
    FAULTS["x@example.net"] = ["550 5.1.1 no such user", "data 451 4.3.0 later", ""]
    with pytest.raises(smtplib.SMTPRecipientsRefused):
        send_mails(port, "x@example.net")
    with pytest.raises(smtplib.SMTPDataError):
        send_mails(port, "x@example.net")
    send_mails(port, "x@example.net")
    assert MailStore().count() == 1


@pytest.mark.parametrize(("fault", "stored"), [("drop before", 0), ("drop after", 1)])
def test_drops_the_connection(port: int, fault: str, stored: int) -> None:
    FAULTS["x@example.net"] = [fault]
    with pytest.raises(smtplib.SMTPServerDisconnected):
        send_mails(port, "x@example.net")
    send_mails(port, "y@example.net")
    assert MailStore().count() == stored + 1


def test_accepts_many_mails_over_one_connection(port: int) -> None:
    send_mails(port, *(f"p{n}@example.net" for n in range(200)))
    assert MailStore().count() == 200
