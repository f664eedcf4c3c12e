"""Factory of live e-mail activities for delivery tests. Rows are written directly, as a launch would leave them."""

from collections import Counter
from email import message_from_bytes, policy
from email.message import EmailMessage
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from campaigns import clock, db
from campaigns.audience.models import ConsentEntry, ConsentLevel, ConsentPurpose, Contact
from campaigns.content.models import Link, MessageVersion
from campaigns.delivery.models import Send, SendState
from campaigns.mail_catcher.store import MailStore
from campaigns.planning.models import Activity, ActivityStatus
from tests.factories import make_activity, make_contact, make_list, make_message, make_organisation

HTML = """<!doctype html><html lang="en"><body><p>Hello {{ contact.first_name }}</p>
<a href="{{ links[1] }}">See the offer</a> {% if pixel %}<img src="{{ pixel }}" alt="" width="1" height="1">{% endif %}
<a href="{{ unsubscribe_url }}">Unsubscribe</a></body></html>"""
TEXT = "Hello {{ contact.first_name }}\n\nSee the offer: {{ links[1] }}\n\nUnsubscribe: {{ unsubscribe_url }}\n"


def make_version(session: Session, **values: Any) -> MessageVersion:
    message = make_message(session)
    version = MessageVersion(
        **{
            "message_id": message.id,
            "content_hash": f"{message.id:064}",
            "subject": "News for {{ contact.first_name }}",
            "preheader": "",
            "mjml": "",
            "html": HTML,
            "text": TEXT,
            "language": "en",
            "from_name": "Example",
            "from_email": "news@example.org",
            "reply_to": "hello@example.org",
            "created_at": clock.now(),
            "links": [Link(number=1, url="https://example.org/offer", label="See the offer")],
            **values,
        }
    )
    session.add(version)
    session.flush()
    return version


def grant_consent(session: Session, contact: Contact, *purposes: ConsentPurpose) -> Contact:
    """Give the contact full consent for ``purposes``, all purposes by default. Returns the contact."""
    for purpose in purposes or tuple(ConsentPurpose):
        session.add(
            ConsentEntry(
                contact_id=contact.id,
                purpose=purpose,
                level=ConsentLevel.FULL,
                at=clock.now(),
                source="test",
                recorded_by="test",
                evidence={},
            )
        )
    session.flush()
    return contact


def make_mailing(session: Session, size: int, **values: Any) -> Activity:
    """A live activity for a list of ``size`` contacts with full consent, not expanded yet."""
    make_organisation(session)
    contacts = [grant_consent(session, make_contact(session)) for _ in range(size)]
    people = make_list(session, *contacts)
    version = make_version(session)
    now = clock.now()
    return make_activity(
        session,
        **{
            "status": ActivityStatus.LIVE,
            "everybody": False,
            "list_id": people.id,
            "message_id": version.message_id,
            "version_id": version.id,
            "due_at": now,
            "launched_at": now,
            **values,
        },
    )


def count_states(activity_id: int) -> dict[str, int]:
    """Number of sends of the activity by state."""
    with db.read_only_session() as session:
        found_states = session.scalars(select(Send.state).where(Send.activity_id == activity_id))
        return dict(Counter(state.value for state in found_states))


def load_sends(activity_id: int, *in_states: SendState) -> list[Send]:
    with db.read_only_session() as session:
        query = select(Send).where(Send.activity_id == activity_id).order_by(Send.id)
        return list(session.scalars(query.where(Send.state.in_(in_states)) if in_states else query))


def count_mails() -> Counter[str]:
    """Number of mails in the mail catcher by recipient."""
    return Counter(mail.recipient for mail in MailStore().mails(limit=1_000_000))


def parse_mail(raw: bytes) -> EmailMessage:
    """Parse a mail with Python's parser, and assert that it has no defects."""
    message = message_from_bytes(raw, policy=policy.default)
    assert isinstance(message, EmailMessage)
    for part in message.walk():
        assert not part.defects
        for value in part.values():
            assert not getattr(value, "defects", ())
    return message
