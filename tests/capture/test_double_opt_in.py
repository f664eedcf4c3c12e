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
from campaigns.capture.models import DoubleOptIn, Form, PendingConsent
from campaigns.capture.submissions import LeadSource, SubmissionInput, accept
from campaigns.errors import BadToken
from campaigns.leads.models import Lead
from campaigns.outbox import OutboxMail
from campaigns.tokens import Purpose, keyring
from tests.conftest import NOON, FrozenClock
from tests.factories import make_contact, make_form

EMAIL, TRACKING = ConsentPurpose.EMAIL, ConsentPurpose.TRACKING
ANA = "ana@example.org"


def send(session: Session, form: Form, number: int = 1, email: str = ANA) -> int:
    submitted = SubmissionInput(
        form.id, f"submission-{number:04}", email, LeadSource("web"), consents=True, network="7f/24"
    )
    return accept(session, submitted).contact_id


def level(session: Session, contact_id: int) -> ConsentLevel:
    return consent.as_of(session, [contact_id], EMAIL, clock.now())[contact_id]


def mails(session: Session) -> list[OutboxMail]:
    return list(session.scalars(select(OutboxMail).where(OutboxMail.kind == "confirm")))


def token(mail: OutboxMail) -> str:
    return str(mail.context["link"]).rpartition("/")[2]


def unsubscribed(session: Session) -> Contact:
    contact = make_contact(session, email=ANA)
    consent.withdraw(session, PUBLIC, contact.id, EMAIL, source="unsubscribe link")
    suppression.suppress(session, PUBLIC, ANA, SuppressionReason.UNSUBSCRIBED)
    return contact


def test_a_stranger_cannot_end_an_unsubscription(session: Session) -> None:
    contact = unsubscribed(session)
    assert send(session, make_form(session)) == contact.id
    assert suppression.is_suppressed(session, ANA)
    assert level(session, contact.id) is ConsentLevel.NONE
    assert session.scalar(select(func.count()).select_from(Lead)) == 1
    [mail] = mails(session)
    asked = double_opt_in.confirmation_of(session, token(mail))
    double_opt_in.confirm(session, asked, "0a/8")
    assert not suppression.is_suppressed(session, ANA)
    assert level(session, contact.id) is ConsentLevel.FULL
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
    contact = unsubscribed(session)
    send(session, make_form(session))
    asked = double_opt_in.confirmation_of(session, token(mails(session)[0]))
    double_opt_in.confirm(session, asked, "")
    consent.withdraw(session, PUBLIC, contact.id, EMAIL, source="unsubscribe link")
    double_opt_in.confirm(session, asked, "")
    assert level(session, contact.id) is ConsentLevel.NONE


@pytest.mark.parametrize(
    ("rule", "known", "waits"),
    [
        (DoubleOptIn.OFF, True, False),
        (DoubleOptIn.RETURNING, False, False),
        (DoubleOptIn.RETURNING, True, True),
        (DoubleOptIn.EVERYBODY, False, True),
    ],
)
def test_whose_consent_waits(session: Session, rule: DoubleOptIn, known: bool, waits: bool) -> None:
    if known:
        unsubscribed(session)
    contact_id = send(session, make_form(session, double_opt_in=rule))
    assert (level(session, contact_id) is ConsentLevel.NONE) is waits
    assert len(mails(session)) == waits


def test_an_erased_person_is_asked(session: Session) -> None:
    suppression.suppress(session, SYSTEM, ANA, SuppressionReason.ERASED)
    contact_id = send(session, make_form(session))
    assert level(session, contact_id) is ConsentLevel.NONE
    assert len(mails(session)) == 1


def test_who_complained_is_not_mailed(session: Session) -> None:
    suppression.suppress(session, PUBLIC, ANA, SuppressionReason.COMPLAINED)
    send(session, make_form(session))
    assert mails(session) == []
    assert session.scalars(select(PendingConsent)).one().mail_sent is False


def test_nobody_is_bombed(session: Session, frozen: FrozenClock) -> None:
    unsubscribed(session)
    forms = [make_form(session) for _ in range(3)]
    for day in range(40):
        frozen.at = NOON + timedelta(days=day)
        for number, form in enumerate(forms):
            send(session, form, day * 10 + number)
        assert len(mails(session)) <= (min(2 * day + 2, 5) if day < 30 else 10)
    assert len(mails(session)) > 2


def test_the_link_opens_only_this_and_only_for_a_week(session: Session, frozen: FrozenClock) -> None:
    contact = unsubscribed(session)
    send(session, make_form(session))
    good = token(mails(session)[0])
    other = keyring().mint_expiring(Purpose.PASSWORD, (1).to_bytes(8), NOON + timedelta(days=1))
    for bad in (other, good[:-1], "x"):
        with pytest.raises(BadToken):
            double_opt_in.confirmation_of(session, bad)
    contact.email = "somebody.else@example.org"
    with pytest.raises(BadToken):
        double_opt_in.confirmation_of(session, good)
    contact.email = ANA
    assert double_opt_in.confirmation_of(session, good)
    frozen.at = NOON + double_opt_in.LIFE + timedelta(seconds=1)
    with pytest.raises(BadToken):
        double_opt_in.confirmation_of(session, good)


def test_the_page(client: FlaskClient) -> None:
    client.application.config["WTF_CSRF_ENABLED"] = True
    with db.transaction() as session:
        send(session, make_form(session, double_opt_in=DoubleOptIn.EVERYBODY, tracking_wording="Measure me."))
    with db.reading() as session:
        where = f"/confirm/{token(mails(session)[0])}"
    for _ in range(2):
        page = client.get(where)
        assert page.status_code == 200
        assert "Yes, write to me about news." in page.text
        assert "Measure me." not in page.text  # it was not ticked
        assert page.headers["Referrer-Policy"] == "same-origin"
    key = re.search(r'name="csrf_token"[^>]*value="([^"]+)"', page.text)
    assert key is not None
    assert client.post(where).status_code == 400
    with db.reading() as session:
        assert session.scalars(select(ConsentEntry)).all() == []
    assert "is confirmed" in client.post(where, data={"csrf_token": key[1]}).text
    assert "is confirmed" in client.get(where).text
    with db.reading() as session:
        assert [entry.purpose for entry in session.scalars(select(ConsentEntry))] == [EMAIL]
    assert client.get("/confirm/x").status_code == 404


@pytest.mark.parametrize("language", ["en", "fa", "ka"])
def test_the_mail(session: Session, language: str) -> None:
    from campaigns.content import system_mail
    from tests.factories import make_organisation

    send(session, make_form(session, language=language, double_opt_in=DoubleOptIn.EVERYBODY))
    [mail] = mails(session)
    merged = system_mail.render(mail.kind, mail.language, mail.context, make_organisation(session))
    assert mail.context["link"] in merged.text
    assert mail.context["link"] in merged.html
