"""Double opt-in: a form filled in with somebody else's address does not change that person's consent."""

import re
from datetime import timedelta

import pytest
from flask.testing import FlaskClient
from sqlalchemy import func, select
from sqlalchemy.orm import Session

from campaigns import clock, db
from campaigns.accounts.actor import PUBLIC, SYSTEM
from campaigns.audience import consent, suppression
from campaigns.audience.models import ConsentEntry, ConsentLevel, ConsentPurpose, Contact, SuppressionReason
from campaigns.capture import double_opt_in
from campaigns.capture.models import DoubleOptInMode, Form, PendingConsent
from campaigns.capture.submissions import LeadSource, SubmissionInput, accept_submission
from campaigns.errors import InvalidTokenError
from campaigns.leads.models import Lead
from campaigns.outbox import OutboxMail
from campaigns.tokens import Purpose, keyring
from tests.conftest import NOON, FrozenClock
from tests.factories import make_contact, make_form

EMAIL, TRACKING = ConsentPurpose.EMAIL, ConsentPurpose.TRACKING
ANA = "ana@example.org"


def submit_form(session: Session, form: Form, number: int = 1, email: str = ANA) -> int:
    submitted = SubmissionInput(
        form.id, f"submission-{number:04}", email, LeadSource("web"), consents=True, network="7f/24"
    )
    return accept_submission(session, submitted).contact_id


def email_level(session: Session, contact_id: int) -> ConsentLevel:
    return consent.levels_as_of(session, [contact_id], EMAIL, clock.now())[contact_id]


def confirmation_mails(session: Session) -> list[OutboxMail]:
    return list(session.scalars(select(OutboxMail).where(OutboxMail.kind == "confirm")))


def token_of(mail: OutboxMail) -> str:
    return str(mail.context["link"]).rpartition("/")[2]


def make_unsubscribed_contact(session: Session) -> Contact:
    contact = make_contact(session, email=ANA)
    consent.withdraw(session, PUBLIC, contact.id, EMAIL, source="unsubscribe link")
    suppression.suppress(session, PUBLIC, ANA, SuppressionReason.UNSUBSCRIBED)
    return contact


def test_a_stranger_cannot_end_an_unsubscription(session: Session) -> None:
    contact = make_unsubscribed_contact(session)
    assert submit_form(session, make_form(session)) == contact.id
    assert suppression.is_suppressed(session, ANA)
    assert email_level(session, contact.id) is ConsentLevel.NONE
    assert session.scalar(select(func.count()).select_from(Lead)) == 1
    [mail] = confirmation_mails(session)
    pending = double_opt_in.pending_consent_by_token(session, token_of(mail))
    double_opt_in.confirm(session, pending, "0a/8")
    assert not suppression.is_suppressed(session, ANA)
    assert email_level(session, contact.id) is ConsentLevel.FULL
    entry = consent.history(session, contact.id)[0]
    assert entry.wording == "Yes, write to me about news."
    assert entry.evidence | {"asked_at": ""} == {
        "form": 1,
        "submission": "submission-0001",
        "asked_at": "",
        "network": "7f/24",
        "confirmed_from": "0a/8",
    } | {"form": entry.evidence["form"]}


def test_a_repeated_confirmation_ends_no_later_withdrawal(session: Session) -> None:
    contact = make_unsubscribed_contact(session)
    submit_form(session, make_form(session))
    pending = double_opt_in.pending_consent_by_token(session, token_of(confirmation_mails(session)[0]))
    double_opt_in.confirm(session, pending, "")
    consent.withdraw(session, PUBLIC, contact.id, EMAIL, source="unsubscribe link")
    double_opt_in.confirm(session, pending, "")
    assert email_level(session, contact.id) is ConsentLevel.NONE


@pytest.mark.parametrize(
    ("rule", "known", "waits"),
    [
        (DoubleOptInMode.OFF, True, False),
        (DoubleOptInMode.RETURNING, False, False),
        (DoubleOptInMode.RETURNING, True, True),
        (DoubleOptInMode.EVERYBODY, False, True),
    ],
)
def test_when_confirmation_is_required(session: Session, rule: DoubleOptInMode, known: bool, waits: bool) -> None:
    if known:
        make_unsubscribed_contact(session)
    contact_id = submit_form(session, make_form(session, double_opt_in=rule))
    assert (email_level(session, contact_id) is ConsentLevel.NONE) is waits
    assert len(confirmation_mails(session)) == waits


def test_erased_person_must_confirm(session: Session) -> None:
    suppression.suppress(session, SYSTEM, ANA, SuppressionReason.ERASED)
    contact_id = submit_form(session, make_form(session))
    assert email_level(session, contact_id) is ConsentLevel.NONE
    assert len(confirmation_mails(session)) == 1


def test_complained_address_is_not_mailed(session: Session) -> None:
    suppression.suppress(session, PUBLIC, ANA, SuppressionReason.COMPLAINED)
    submit_form(session, make_form(session))
    assert confirmation_mails(session) == []
    assert session.scalars(select(PendingConsent)).one().mail_sent is False


def test_confirmation_mails_are_limited(session: Session, frozen: FrozenClock) -> None:
    make_unsubscribed_contact(session)
    forms = [make_form(session) for _ in range(3)]
    for day in range(40):
        frozen.at = NOON + timedelta(days=day)
        for number, form in enumerate(forms):
            submit_form(session, form, day * 10 + number)
        assert len(confirmation_mails(session)) <= (min(2 * day + 2, 5) if day < 30 else 10)
    assert len(confirmation_mails(session)) > 2


def test_link_is_bound_to_purpose_address_and_expiry(session: Session, frozen: FrozenClock) -> None:
    contact = make_unsubscribed_contact(session)
    submit_form(session, make_form(session))
    good = token_of(confirmation_mails(session)[0])
    other = keyring().mint_expiring(Purpose.PASSWORD, (1).to_bytes(8), NOON + timedelta(days=1))
    for bad in (other, good[:-1], "x"):
        with pytest.raises(InvalidTokenError):
            double_opt_in.pending_consent_by_token(session, bad)
    contact.email = "somebody.else@example.org"
    with pytest.raises(InvalidTokenError):
        double_opt_in.pending_consent_by_token(session, good)
    contact.email = ANA
    assert double_opt_in.pending_consent_by_token(session, good)
    frozen.at = NOON + double_opt_in.LINK_LIFETIME + timedelta(seconds=1)
    with pytest.raises(InvalidTokenError):
        double_opt_in.pending_consent_by_token(session, good)


def test_confirmation_page(client: FlaskClient) -> None:
    client.application.config["WTF_CSRF_ENABLED"] = True
    with db.transaction() as session:
        submit_form(
            session, make_form(session, double_opt_in=DoubleOptInMode.EVERYBODY, tracking_wording="Measure me.")
        )
    with db.read_only_session() as session:
        url = f"/confirm/{token_of(confirmation_mails(session)[0])}"
    for _ in range(2):
        page = client.get(url)
        assert page.status_code == 200
        assert "Yes, write to me about news." in page.text
        assert "Measure me." not in page.text  # it was not ticked
        assert page.headers["Referrer-Policy"] == "same-origin"
    csrf_token = re.search(r'name="csrf_token"[^>]*value="([^"]+)"', page.text)
    assert csrf_token is not None
    assert client.post(url).status_code == 400
    with db.read_only_session() as session:
        assert session.scalars(select(ConsentEntry)).all() == []
    assert "is confirmed" in client.post(url, data={"csrf_token": csrf_token[1]}).text
    assert "is confirmed" in client.get(url).text
    with db.read_only_session() as session:
        assert [entry.purpose for entry in session.scalars(select(ConsentEntry))] == [EMAIL]
    assert client.get("/confirm/x").status_code == 404


@pytest.mark.parametrize("language", ["en", "fa", "ka"])
def test_confirmation_mail(session: Session, language: str) -> None:
    from campaigns.content import system_mail
    from tests.factories import make_organisation

    submit_form(session, make_form(session, language=language, double_opt_in=DoubleOptInMode.EVERYBODY))
    [mail] = confirmation_mails(session)
    merged = system_mail.render(mail.kind, mail.language, mail.context, make_organisation(session))
    assert mail.context["link"] in merged.text
    assert mail.context["link"] in merged.html
