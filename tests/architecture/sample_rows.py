"""One row of every table that has a page, so that each URL of the application resolves."""

from datetime import timedelta

from sqlalchemy.orm import Session

from campaigns import clock
from campaigns.audience.models import (
    ConsentEntry,
    ConsentLevel,
    ConsentPurpose,
    ContactImport,
    ImportState,
    Suppression,
    SuppressionReason,
)
from campaigns.audience.suppression import address_hash
from campaigns.capture.models import Submission
from campaigns.content.models import Link, MessageVersion
from campaigns.delivery.models import Send, SendState
from campaigns.leads.models import Lead
from campaigns.planning.models import ActivityStatus, CampaignStatus, Preflight, ShortLink
from tests import factories

FIRST, LAST, EMAIL = "Zarathustra", "Quirinius", "zarathustra.quirinius@person.example"
SECRETS = (FIRST, LAST, EMAIL, "Quirinius & Sons")
"""Personal data that users without the permission PERSONAL must not see."""


def insert_sample_rows(session: Session) -> None:
    """Insert rows whose ids are all 1 (the send's is the activity's first), about one contact."""
    contact = factories.make_contact(
        session, first_name=FIRST, last_name=LAST, email=EMAIL, attributes={"company": "Quirinius & Sons"}
    )
    contact_list = factories.make_list(session, contact, name="Regulars")
    message = factories.make_message(session)
    version = MessageVersion(
        message_id=message.id,
        content_hash="x",
        subject="Hello {{ contact.first_name }}",
        preheader="",
        mjml="",
        html="<p>Hello</p>",
        text="Hello",
        language="en",
        from_name="Acme",
        from_email="news@acme.example",
        reply_to="",
        created_at=clock.now(),
        links=[Link(number=1, url="https://example.org/offer", label="See the offer")],
    )
    session.add(version)
    session.flush()
    campaign = factories.make_campaign(session, status=CampaignStatus.ACTIVE)
    activity = factories.make_activity(
        session,
        campaign,
        everybody=False,
        list_id=contact_list.id,
        message_id=message.id,
        version_id=version.id,
        status=ActivityStatus.LIVE,
        expanded_at=clock.now(),
    )
    form = factories.make_form(session, activity, slug="form-1")
    send = Send(
        id=(activity.id << 32) + 1,
        activity_id=activity.id,
        contact_id=contact.id,
        address=EMAIL,
        recipient_key=f"c:{contact.id}",
        version_id=version.id,
        state=SendState.BOUNCED,
        trackable=True,
        reply=f"550 5.1.1 <{EMAIL}> is unknown here",
        sent_at=clock.now(),
        bounced_at=clock.now(),
    )
    lead = Lead(
        contact_id=contact.id,
        campaign_id=campaign.id,
        activity_id=activity.id,
        source="email",
        notes=f"{FIRST} called",
        created_at=clock.now(),
    )
    session.add_all([send, lead])
    session.flush()
    session.add_all(
        [
            Submission(
                external_id="e" * 32,
                form_id=form.id,
                campaign_id=campaign.id,
                activity_id=activity.id,
                contact_id=contact.id,
                lead_id=lead.id,
                new_lead=True,
                at=clock.now() - timedelta(minutes=1),
                answers={"email": EMAIL, "first_name": FIRST},
                send_id=send.id,
            ),
            Suppression(
                address=EMAIL, address_hash=address_hash(EMAIL), reason=SuppressionReason.MANUAL, at=clock.now()
            ),
            ConsentEntry(
                contact_id=contact.id,
                purpose=ConsentPurpose.EMAIL,
                level=ConsentLevel.FULL,
                at=clock.now(),
                source="paper",
                evidence={},
                recorded_by="Owner",
            ),
            ContactImport(
                filename="people.csv",
                content_key="k",
                state=ImportState.UPLOADED,
                columns=["email"],
                mapping=["email"],
                encoding="utf-8-sig",
                created_at=clock.now(),
                problems=[],
            ),
            ShortLink(
                activity_id=activity.id,
                number=1,
                code="abcdefgh",
                label="Poster",
                url="https://example.org/",
                utm="utm_source=event",
                created_at=clock.now(),
                changed_at=clock.now(),
            ),
            Preflight(
                activity_id=activity.id,
                subject_hash="x",
                passed=True,
                findings=[],
                audience={"total": 1, "mailable": 1},
                created_at=clock.now(),
            ),
        ]
    )
