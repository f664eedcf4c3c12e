"""Form submissions: contact, consent, lead and Submission are written once."""

from threading import Barrier, Thread
from typing import Any

import pytest
from sqlalchemy import Engine, func, select
from sqlalchemy.orm import Session

from campaigns import clock, db
from campaigns.accounts.actor import PUBLIC
from campaigns.audience import consent, suppression
from campaigns.audience.models import (
    ConsentEntry,
    ConsentLevel,
    ConsentPurpose,
    Contact,
    ListMember,
    SuppressionReason,
)
from campaigns.capture.models import DoubleOptInMode, Form, Submission
from campaigns.capture.submissions import LeadSource, SubmissionInput, accept_submission
from campaigns.errors import Conflict, NotFound, ValidationFailed
from campaigns.leads.models import Lead
from campaigns.outbox import OutboxMail
from tests.factories import make_contact, make_form, make_list, make_user

QUESTIONS = [
    {"name": "first_name", "label": "First name", "required": False},
    {"name": "attributes.company", "label": "Company", "required": True},
]


def make_input(form: Form, **values: Any) -> SubmissionInput:
    return SubmissionInput(
        **{
            "form_id": form.id,
            "external_id": "0123456789abcdef",
            "email": "Ana@Example.org",
            "origin": LeadSource("web"),
            "answers": {"first_name": "Ana", "attributes.company": "Acme"},
            **values,
        }
    )


@pytest.fixture
def form(session: Session) -> Form:
    return make_form(session, fields=QUESTIONS)


def count(session: Session, model: type) -> int:
    return session.scalar(select(func.count()).select_from(model)) or 0


def test_submission_creates_contact_and_lead(session: Session, form: Form) -> None:
    submission = accept_submission(session, make_input(form, send_id=(3 << 32) | 1))
    contact = session.get_one(Contact, submission.contact_id)
    assert (contact.email, contact.first_name, contact.attributes) == ("ana@example.org", "Ana", {"company": "Acme"})
    assert (contact.language, contact.source) == ("en", f"form {form.slug}")
    lead = session.get_one(Lead, submission.lead_id)
    assert (lead.campaign_id, lead.activity_id, lead.source) == (form.campaign_id, form.activity_id, "web")
    assert (submission.new_lead, submission.send_id) == (True, (3 << 32) | 1)
    assert submission.answers == {"email": "ana@example.org", "first_name": "Ana", "attributes.company": "Acme"}
    assert count(session, ConsentEntry) == 0


def test_repeated_submission_is_idempotent(session: Session, form: Form) -> None:
    first = accept_submission(session, make_input(form, consents=True))
    assert accept_submission(session, make_input(form, consents=True)) is first
    assert (count(session, Submission), count(session, Lead), count(session, ConsentEntry)) == (1, 1, 1)


def test_a_second_submission_is_no_second_lead(session: Session, form: Form) -> None:
    first = accept_submission(session, make_input(form))
    second = accept_submission(session, make_input(form, external_id="another-submission"))
    assert (second.lead_id, second.new_lead) == (first.lead_id, False)
    assert count(session, Submission) == 2


def test_only_empty_fields_of_a_known_contact_are_filled(session: Session, form: Form) -> None:
    contact = make_contact(
        session, email="ana@example.org", first_name="Anna", attributes={"company": "", "city": "Baku"}
    )
    accept_submission(session, make_input(form))
    assert (contact.first_name, contact.attributes) == ("Anna", {"company": "Acme", "city": "Baku"})
    accept_submission(
        session, make_input(form, external_id="another-submission", answers={"attributes.company": "Evil"})
    )
    assert contact.attributes["company"] == "Acme"


def test_consent_is_recorded_with_its_wording(session: Session, form: Form) -> None:
    submission = accept_submission(session, make_input(form, consents=True, network="c00002/24"))
    entry = session.scalars(select(ConsentEntry)).one()
    assert (entry.purpose, entry.level, entry.wording) == (
        ConsentPurpose.EMAIL,
        ConsentLevel.FULL,
        form.consent_wording,
    )
    assert entry.evidence == {"form": form.id, "submission": submission.external_id, "network": "c00002/24"}


def test_tracking_consent_is_separate(session: Session) -> None:
    form = make_form(session, fields=QUESTIONS, tracking_wording="You may count my clicks.")
    for number, (consents, may_measure) in enumerate([(False, False), (True, False), (False, True), (True, True)]):
        contact_id = accept_submission(
            session,
            make_input(
                form,
                consents=consents,
                may_measure=may_measure,
                external_id=f"submission-{number}",
                email=f"ana{number}@example.org",
            ),
        ).contact_id
        entries = session.scalars(select(ConsentEntry).where(ConsentEntry.contact_id == contact_id))
        expected = {ConsentPurpose.EMAIL: form.consent_wording} if consents else {}
        expected |= {ConsentPurpose.TRACKING: "You may count my clicks."} if may_measure else {}
        assert {entry.purpose: entry.wording for entry in entries} == expected


def test_tick_without_wording_grants_nothing(session: Session) -> None:
    form = make_form(session, fields=QUESTIONS, consent_wording="")
    accept_submission(session, make_input(form, consents=True, may_measure=True))
    assert count(session, ConsentEntry) == 0


def test_only_ticked_consent_ends_an_unsubscription(session: Session, form: Form) -> None:
    form.double_opt_in = DoubleOptInMode.OFF
    contact = make_contact(session, email="ana@example.org")
    consent.withdraw(session, PUBLIC, contact.id, ConsentPurpose.EMAIL, source="unsubscribe page")
    suppression.suppress(session, PUBLIC, contact.email, SuppressionReason.UNSUBSCRIBED)
    accept_submission(session, make_input(form))
    assert suppression.is_suppressed(session, contact.email)
    accept_submission(session, make_input(form, external_id="another-submission", consents=True))
    assert not suppression.is_suppressed(session, contact.email)
    levels = consent.levels_as_of(session, [contact.id], ConsentPurpose.EMAIL, clock.now())
    assert levels == {contact.id: ConsentLevel.FULL}


def test_joins_the_form_s_list_once(session: Session) -> None:
    form = make_form(session, fields=[], list_id=make_list(session).id)
    accept_submission(session, make_input(form))
    accept_submission(session, make_input(form, external_id="another-submission"))
    assert count(session, ListMember) == 1


def test_owner_is_notified_of_a_new_lead_once(session: Session) -> None:
    owner = make_user(session, language="fa")
    form = make_form(session, fields=[], notify_owner=True)
    origin = LeadSource("web", owner.id, "Spring", "Landing page")
    submission = accept_submission(session, make_input(form, origin=origin))
    accept_submission(session, make_input(form, origin=origin, external_id="another-submission"))
    mail = session.scalars(select(OutboxMail)).one()
    assert (mail.kind, mail.address, mail.language) == ("new_lead", owner.email, "fa")
    assert mail.context["campaign"] == "Spring"
    assert mail.context["url"] == f"http://localhost/leads/{submission.lead_id}"


def test_bad_input_names_its_fields_and_changes_nothing(session: Session, form: Form) -> None:
    with pytest.raises(ValidationFailed) as caught:
        accept_submission(
            session, make_input(form, email="nobody", answers={"first_name": "x" * 101, "attributes.company": " \x00 "})
        )
    assert {problem.field for problem in caught.value.problems} == {"email", "first_name", "attributes-company"}
    with pytest.raises(ValidationFailed):
        accept_submission(session, make_input(form, external_id="short"))
    assert count(session, Contact) == 0


def test_unknown_answers_are_dropped(session: Session, form: Form) -> None:
    submission = accept_submission(
        session, make_input(form, answers={"attributes.company": "Acme", "attributes.admin": "yes"})
    )
    assert "attributes.admin" not in submission.answers


def test_a_closed_or_missing_form_accepts_nothing(session: Session) -> None:
    form = make_form(session, open=False)
    with pytest.raises(Conflict, match="closed"):
        accept_submission(session, make_input(form))
    with pytest.raises(NotFound):
        accept_submission(session, make_input(form, form_id=987654))


def test_closed_form_still_returns_an_accepted_submission(session: Session, form: Form) -> None:
    first = accept_submission(session, make_input(form))
    form.open = False
    assert accept_submission(session, make_input(form)) is first


@pytest.mark.parametrize("same", [True, False])
def test_two_sessions_accept_at_once(database: Engine, same: bool) -> None:
    """A double click (same submission), and concurrent submissions of one person: one lead in both cases."""
    with db.transaction() as session:
        form = make_form(session, fields=[], list_id=make_list(session).id, notify_owner=True)
        origin = LeadSource("web", make_user(session).id)
    barrier, results = Barrier(4), []

    def race(number: int) -> None:
        barrier.wait()
        external_id = "the-same-submission" if same else f"submission-{number}"
        with db.transaction() as mine:
            results.append(
                accept_submission(mine, make_input(form, origin=origin, external_id=external_id, consents=True)).id
            )

    threads = [Thread(target=race, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    submissions = 1 if same else 4
    assert len(results) == 4
    assert len(set(results)) == submissions
    with db.read_only_session() as session:
        assert count(session, Submission) == count(session, ConsentEntry) == submissions
        assert [count(session, model) for model in (Contact, Lead, ListMember, OutboxMail)] == [1, 1, 1, 1]
