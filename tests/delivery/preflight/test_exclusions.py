"""Tests of exclusions: counts add up, and each count equals the list of its contacts."""

from datetime import timedelta

import pytest
from sqlalchemy.orm import Session

from campaigns import clock
from campaigns.accounts.actor import SYSTEM
from campaigns.audience import consent, suppression
from campaigns.audience.models import ConsentPurpose, Contact, SuppressionReason
from campaigns.delivery.models import Send, SendState
from campaigns.delivery.preflight import exclusions
from campaigns.errors import NotFound
from campaigns.planning.models import Activity
from tests.delivery.launched_activity import grant_consent
from tests.factories import make_activity, make_contact, make_list, make_organisation


def make_audience(session: Session) -> tuple[Activity, dict[str, list[Contact]]]:
    """An activity to a list with contacts of every reason, and one contact outside of it.

    Returns the activity and reason → contacts.
    """
    make_organisation(session)
    people: dict[str, list[Contact]] = {"mailable": [], "no_consent": [], "withdrawn": []}
    people["mailable"] = [grant_consent(session, make_contact(session)) for _ in range(3)]
    people["no_consent"] = [make_contact(session) for _ in range(2)]
    people["withdrawn"] = [grant_consent(session, make_contact(session))]
    consent.withdraw(
        session,
        SYSTEM,
        people["withdrawn"][0].id,
        ConsentPurpose.EMAIL,
        source="letter",
        at=clock.now() + timedelta(seconds=1),
    )
    for reason in set(SuppressionReason) - {SuppressionReason.ERASED}:
        contact = grant_consent(session, make_contact(session))
        suppression.suppress(session, SYSTEM, contact.email, reason, f"because {reason.value}")
        people[f"suppressed.{reason.value}"] = [contact]
    suppressed_without_consent = make_contact(session)
    suppression.suppress(session, SYSTEM, suppressed_without_consent.email, SuppressionReason.MANUAL)
    people["suppressed.manual"].append(suppressed_without_consent)
    listed = make_list(session, *(contact for group in people.values() for contact in group))
    grant_consent(session, make_contact(session))
    return make_activity(session, everybody=False, list_id=listed.id), people


def test_counts_add_up_and_equal_the_lists(session: Session) -> None:
    activity, people = make_audience(session)
    audience = exclusions.count(session, activity).audience
    assert audience == {"total": sum(map(len, people.values())), **{why: len(found) for why, found in people.items()}}
    for why, expected in people.items():
        rows = session.execute(exclusions.contacts_query(session, activity, why)).all()
        assert {row.Contact.id for row in rows} == {contact.id for contact in expected}, why
        assert exclusions.label_msgids(why)[0]
        if why != "mailable":
            assert all(row.since is not None for row in rows), why
    detail = session.execute(exclusions.contacts_query(session, activity, "suppressed.bounced")).one().detail
    assert detail == "because bounced"
    assert session.execute(exclusions.contacts_query(session, activity, "withdrawn")).one().detail == "letter"


def test_missing_values_count_mailable_contacts(session: Session) -> None:
    activity, people = make_audience(session)
    people["mailable"][0].first_name = " "
    people["mailable"][1].attributes = {"city": "Tbilisi"}
    people["no_consent"][0].first_name = ""
    session.flush()
    counted = exclusions.count(session, activity, ["contact.first_name", "contact.city", "contact.last_name"])
    assert counted.missing_values["contact.first_name"] == 1
    assert counted.missing_values["contact.city"] == 2
    (row,) = session.execute(exclusions.contacts_query(session, activity, "lacks.contact.first_name")).all()
    assert row.Contact.id == people["mailable"][0].id


def test_bounced_before_counts_mailable_contacts(session: Session) -> None:
    activity, people = make_audience(session)
    earlier = make_activity(session, everybody=True)
    both = [people["mailable"][0], people["no_consent"][0]]
    for number, contact in enumerate(both, 1):
        session.add(
            Send(
                id=(earlier.id << 32) + number,
                activity_id=earlier.id,
                contact_id=contact.id,
                address=contact.email,
                recipient_key=f"c:{contact.id}",
                state=SendState.BOUNCED,
            )
        )
    session.flush()
    assert exclusions.count_bounced_before(session, activity) == 1
    (row,) = session.execute(exclusions.contacts_query(session, activity, exclusions.BOUNCED_BEFORE)).all()
    assert row.Contact.id == both[0].id


def test_empty_audience_and_unknown_reason(session: Session) -> None:
    make_organisation(session)
    nobody = make_activity(session, everybody=False)
    assert exclusions.count(session, nobody, ["contact.city"]).audience == {"total": 0, "mailable": 0}
    for why in ("suppressed.nonsense", "", "nonsense"):
        with pytest.raises(NotFound):
            exclusions.contacts_query(session, nobody, why)
