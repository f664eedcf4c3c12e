"""Tests of composed mails: against a golden file, and read back by Python's parser."""

import dataclasses
from datetime import UTC, datetime
from pathlib import Path

import pytest
from sqlalchemy.orm import Session

from campaigns.delivery.mime.compose import MailContext, compose
from campaigns.delivery.mime.envelope import OutgoingMail
from campaigns.delivery.models import Send, SendState
from campaigns.errors import KampaniaError
from campaigns.outbox import OutboxMail
from tests.conftest import FrozenClock
from tests.delivery.launched_activity import make_version, parse_mail
from tests.factories import make_activity, make_campaign, make_contact, make_organisation

GOLDEN = Path(__file__).with_name("golden.eml")
AT = datetime(2026, 11, 22, 12, 0, tzinfo=UTC)


def make_mail_context(session: Session, *, trackable: bool = True, name: str = "Zoé", **version: object) -> MailContext:
    """A mail context with fixed ids, so that tokens are the same in each run."""
    organisation = make_organisation(session)
    campaign = make_campaign(session, id=41, name="Spring")
    activity = make_activity(session, campaign, id=42, everybody=False, list_id=None)
    contact = make_contact(session, email="zoe@example.net", first_name=name, last_name="Moreau")
    send = Send(id=(42 << 32) + 1, activity_id=42, address=contact.email, recipient_key="c:1", state=SendState.SENDING)
    version_row = make_version(session, **version)
    session.expunge_all()
    activity.email.list_id = 7
    return MailContext(send, activity, organisation, version_row, contact, None, trackable)


def test_golden_file(session: Session, frozen: FrozenClock) -> None:
    mail = compose(make_mail_context(session, content_hash=f"{1:064}"), AT)
    assert mail.content == GOLDEN.read_bytes()
    assert mail.recipient == "zoe@example.net"
    assert mail.sender.startswith("b+")
    assert mail.sender.endswith("@example.org")


def test_mail_is_read_back(session: Session) -> None:
    mail = compose(make_mail_context(session), AT)
    message = parse_mail(mail.content)
    assert message["Subject"] == "News for Zoé"
    assert message["To"].addresses[0].addr_spec == "zoe@example.net"
    assert message["Reply-To"] == "hello@example.org"
    assert message["List-Id"] == "<list-7.example.org>"
    assert message["List-Unsubscribe-Post"] == "List-Unsubscribe=One-Click"
    assert message["Date"].endswith("+0000")
    plain, html = message.iter_parts()
    assert (plain.get_content_type(), html.get_content_type()) == ("text/plain", "text/html")
    assert plain.get_content().startswith("Hello Zoé\r\n")
    assert "Hello Zoé" in html.get_content()
    assert "/o/" in html.get_content()
    assert all(len(line) <= 78 for line in mail.content.split(b"\r\n") if not line.startswith(b"List-Unsubscribe"))
    assert message["List-Unsubscribe"].strip("<>") in html.get_content()


def test_every_attempt_composes_the_same_mail(session: Session) -> None:
    made = make_mail_context(session)
    first, second = compose(made, AT), compose(made, AT.replace(hour=13))
    assert parse_mail(first.content)["Message-ID"] == parse_mail(second.content)["Message-ID"]
    assert first.sender == second.sender


def test_untrackable_mail_has_no_personal_links(session: Session) -> None:
    made = make_mail_context(session, trackable=False)
    mine = compose(made, AT)
    other = dataclasses.replace(made, send=Send(id=(42 << 32) + 2, address="zoe@example.net"))
    links = [
        line
        for mail in (mine, compose(other, AT))
        for line in parse_mail(mail.content).get_body().get_content().splitlines()  # type: ignore[union-attr]
        if "offer" in line.lower()
    ]
    assert links[0] == links[1]
    assert b"/o/" not in mine.content


@pytest.mark.parametrize("name", ["Lea\r\nBcc: all@example.org", "x\ny", "\x01", "a\u2028b"])
def test_no_header_injection(session: Session, name: str) -> None:
    message = parse_mail(compose(make_mail_context(session, name=name, from_name=f"Us {name}"), AT).content)
    assert "Bcc" not in message
    assert len(message.keys()) == 12


@pytest.mark.parametrize("address", ["x@y.example\r\nRCPT TO:<z@y.example>", "x y@z.example", "nobody"])
def test_invalid_address_is_an_error(session: Session, address: str) -> None:
    made = make_mail_context(session)
    made = dataclasses.replace(made, send=Send(id=made.send.id, address=address))
    with pytest.raises(ValueError, match="not an address"):
        compose(made, AT)


def test_system_mail(session: Session) -> None:
    made = make_mail_context(session)
    outbox = OutboxMail(kind="new_lead", address="me@example.org", language="en", context={})
    with pytest.raises(Exception, match=r"undefined|no such mail"):  # system mail itself is tested elsewhere
        compose(dataclasses.replace(made, version=None, outbox=outbox), AT)
    with pytest.raises((ValueError, KampaniaError)):
        compose(dataclasses.replace(made, version=None), AT)


def test_test_mail_is_marked_in_subject(session: Session) -> None:
    made = make_mail_context(session)
    made.activity.built_in = "test"
    mail: OutgoingMail = compose(dataclasses.replace(made, contact=None), AT)
    message = parse_mail(mail.content)
    assert message["Subject"] == "[Test] News for"
    assert message["To"] == "zoe@example.net"
