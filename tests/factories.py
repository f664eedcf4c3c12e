"""Factories of database rows with default values.

They write rows directly instead of calling service functions, so that the tests of a package need no other package.
"""

from decimal import Decimal
from itertools import count
from typing import Any, TypeVar

from sqlalchemy.orm import Session

from campaigns import clock
from campaigns.accounts.models import Organisation, Role, User
from campaigns.audience.models import Contact, ContactList, ListMember
from campaigns.capture.models import Form
from campaigns.content.models import Message
from campaigns.planning.models import Activity, ActivityStatus, Campaign, Channel, EmailDetails, Objective

Row = TypeVar("Row")
_numbers = count(1)

MJML = """<mjml>
  <mj-body>
    <mj-section><mj-column>
      <mj-text>Hello {{ contact.first_name }}</mj-text>
      <mj-button href="https://example.org/offer">See the offer</mj-button>
    </mj-column></mj-section>
  </mj-body>
</mjml>"""


def _add(session: Session, row: Row) -> Row:
    session.add(row)
    session.flush()
    return row


def make_organisation(session: Session, **values: Any) -> Organisation:
    """The organisation; the existing one when there is one already."""
    existing = session.get(Organisation, 1)
    if existing is not None:
        return existing
    return _add(
        session,
        Organisation(
            **{
                "id": 1,
                "name": "Example Ltd",
                "language": "en",
                "timezone": "UTC",
                "currency": "EUR",
                "sender_name": "Example",
                "sender_email": "news@example.org",
                "postal_address": "1 Example Street, Exampletown",
                "own_hosts": [],
                **values,
            }
        ),
    )


def make_user(session: Session, role: Role | str = Role.COORDINATOR, **values: Any) -> User:
    """A user who can't sign in by password (no password matches its hash)."""
    number = next(_numbers)
    return _add(
        session,
        User(
            **{
                "email": f"person{number}@example.org",
                "name": f"Person {number}",
                "password_hash": "!",
                "role": Role(role),
                "session_epoch": 0,
                "created_at": clock.now(),
                **values,
            }
        ),
    )


def make_contact(session: Session, **values: Any) -> Contact:
    number = next(_numbers)
    return _add(
        session,
        Contact(
            **{
                "email": f"contact{number}@example.net",
                "first_name": f"First{number}",
                "last_name": f"Last{number}",
                "attributes": {},
                "source": "test",
                "created_at": clock.now(),
                "updated_at": clock.now(),
                **values,
            }
        ),
    )


def make_list(session: Session, *contacts: Contact, **values: Any) -> ContactList:
    """A list with ``contacts`` as members."""
    contact_list = _add(session, ContactList(**{"name": f"List {next(_numbers)}", "created_at": clock.now(), **values}))
    session.add_all(
        ListMember(list_id=contact_list.id, contact_id=contact.id, added_at=clock.now()) for contact in contacts
    )
    session.flush()
    return contact_list


def make_message(session: Session, **values: Any) -> Message:
    return _add(
        session,
        Message(
            **{
                "name": f"Message {next(_numbers)}",
                "subject": "News for {{ contact.first_name }}",
                "preheader": "What is new",
                "mjml": MJML,
                "language": "en",
                "created_at": clock.now(),
                "updated_at": clock.now(),
                **values,
            }
        ),
    )


def make_campaign(session: Session, **values: Any) -> Campaign:
    return _add(
        session,
        Campaign(
            **{
                "name": f"Campaign {next(_numbers)}",
                "objective": Objective.LEADS,
                "budget": Decimal("1000.00"),
                "created_at": clock.now(),
                **values,
            }
        ),
    )


EMAIL_FIELDS = (
    "message_id",
    "version_id",
    "list_id",
    "everybody",
    "stop_after",
    "window_days",
    "window_from",
    "window_until",
    "expanded_to",
    "expanded_at",
)


def make_activity(session: Session, campaign: Campaign | None = None, **values: Any) -> Activity:
    """An approved activity: e-mail to everybody unless ``values`` differ. Creates a campaign when none is given."""
    campaign = campaign or make_campaign(session)
    if values.get("status") in (ActivityStatus.LIVE, ActivityStatus.PAUSED, ActivityStatus.FINISHED):
        values = {"launched_at": clock.now(), **values}
    email = {name: values.pop(name) for name in EMAIL_FIELDS if name in values}
    made = Activity(
        **{
            "campaign": campaign,
            "campaign_id": campaign.id,
            "channel": Channel.EMAIL,
            "title": f"Activity {next(_numbers)}",
            "status": ActivityStatus.APPROVED,
            "created_at": clock.now(),
            **values,
        }
    )
    if made.channel is Channel.EMAIL:
        made.email_details = EmailDetails(**{"everybody": True, **email})
    return _add(session, made)


def make_form(session: Session, activity: Activity | None = None, **values: Any) -> Form:
    """An open form of ``activity``, by default of a new web activity."""
    activity = activity or make_activity(session, channel=Channel.WEB, everybody=False)
    number = next(_numbers)
    return _add(
        session,
        Form(
            **{
                "campaign_id": activity.campaign_id,
                "activity_id": activity.id,
                "slug": f"form-{number}",
                "language": "en",
                "title": "Ask for a sample",
                "intro": "We send you one.",
                "button": "Send me one",
                "thanks": "Thank you.",
                "fields": [{"name": "first_name", "label": "First name", "required": False}],
                "consent_wording": "Yes, write to me about news.",
                "created_at": clock.now(),
                **values,
            }
        ),
    )
