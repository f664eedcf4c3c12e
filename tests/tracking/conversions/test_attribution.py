"""Tests of lead conversions and of their first-touch and last-touch credit."""

from datetime import datetime, timedelta

from sqlalchemy import Engine, func, select
from sqlalchemy.orm import Session

from campaigns import clock, db
from campaigns.audience.models import Contact
from campaigns.capture.models import Form, Submission
from campaigns.delivery.models import Send
from campaigns.leads.leads import open_lead
from campaigns.leads.models import Lead
from campaigns.planning.models import Activity
from campaigns.tokens import Purpose, keyring
from tests.conftest import FrozenClock
from tests.factories import make_contact, make_form
from tests.tracking.bots.test_final_labels import collect_and_label
from tests.tracking.collector.test_collector import check_counts
from tests.tracking.fixtures import add_send, events, get_send, make_mailing, wsgi_request
from tracking.collector import collector
from tracking.jobs import lead_conversions
from tracking.models.conversions import AttributionCredit, AttributionModel, Conversion, ConversionTouchpoint
from tracking.models.events import HitKind, TrafficLabel


def add_submission(contact_id: int, form_activity: int, send_id: int | None = None, new: bool = True) -> int:
    """Store a submission of an activity's form, as the capture package does; return its id."""
    with db.transaction() as session:
        activity = session.get_one(Activity, form_activity)
        form = _form(session, activity)
        lead = session.scalar(select(Lead).where(Lead.contact_id == contact_id)) or Lead(
            contact_id=contact_id,
            campaign_id=activity.campaign_id,
            activity_id=activity.id,
            source="email",
            created_at=clock.now(),
        )
        session.add(lead)
        session.flush()
        submission = Submission(
            external_id=f"x{clock.now().timestamp()}{contact_id}",
            form_id=form.id,
            campaign_id=activity.campaign_id,
            activity_id=activity.id,
            contact_id=contact_id,
            lead_id=lead.id,
            new_lead=new,
            at=clock.now(),
            send_id=send_id,
        )
        session.add(submission)
        session.flush()
        return submission.id


def _form(session: Session, activity: Activity) -> Form:
    return session.scalar(select(Form).where(Form.activity_id == activity.id)) or make_form(session, activity)


def record_leads() -> int:
    with db.transaction() as session:
        return lead_conversions.record_due(session)


def recredit() -> int:
    with db.transaction() as session:
        return lead_conversions.recredit_due(session)


def credit_by_model() -> dict[str, int]:
    with db.read_only_session() as session:
        return {credit.model.value: credit.activity_id for credit in session.scalars(select(AttributionCredit))}


def test_lead_is_recorded_once_with_first_and_last_touch_credit(database: Engine, frozen: FrozenClock) -> None:
    first, last = make_mailing(), make_mailing(0)
    with db.transaction() as session:
        contact = session.get_one(Contact, first.contacts[0])
        last.sends.append(add_send(session, last, contact, 1, frozen.at).id)
    first.click()
    frozen.at += timedelta(days=2)
    last.click()
    collector.collect_once()
    frozen.at += timedelta(minutes=1)
    submission_id = add_submission(first.contacts[0], last.activity_id, last.sends[0])
    assert record_leads() == 1
    assert record_leads() == 0
    assert credit_by_model() == {"first_touch": first.activity_id, "last_touch": last.activity_id}
    with db.read_only_session() as session:
        conversion = session.scalars(select(Conversion)).one()
        shares = session.execute(
            select(AttributionCredit.model, func.sum(AttributionCredit.share))
            .where(AttributionCredit.conversion_id == conversion.id)
            .group_by(AttributionCredit.model)
        )
        assert {tuple(row) for row in shares} == {(model, 1) for model in AttributionModel}
    assert (conversion.external_id, conversion.goal) == (f"submission:{submission_id}", "lead")


def test_submission_settles_its_click_as_human(database: Engine, frozen: FrozenClock) -> None:
    mailing = make_mailing(sent_at=frozen.at)
    for number in (1, 2, 3):  # A mail gateway follows all links …
        mailing.click(number)
    frozen.at += timedelta(minutes=1)
    mailing.click(2)  # … and then a person clicks one.
    collector.collect_once()
    clicked: datetime = frozen.at
    frozen.at += timedelta(minutes=1)
    add_submission(mailing.contacts[0], mailing.activity_id, mailing.sends[0])
    assert record_leads() == 1
    check_counts()
    assert [TrafficLabel(event.label) for event in events()] == [TrafficLabel.SETTLING] * 3 + [TrafficLabel.HUMAN]
    assert get_send(mailing.sends[0]).clicked_at == clicked
    collect_and_label(frozen)
    assert [TrafficLabel(event.label) for event in events()] == [TrafficLabel.SCANNER] * 3 + [TrafficLabel.HUMAN]


def test_repeated_submission_settles_click_without_conversion(database: Engine, frozen: FrozenClock) -> None:
    mailing = make_mailing()
    add_submission(mailing.contacts[0], mailing.activity_id)
    assert record_leads() == 1
    frozen.at += timedelta(minutes=5)
    mailing.click()
    collector.collect_once()
    frozen.at += timedelta(seconds=5)
    add_submission(mailing.contacts[0], mailing.activity_id, mailing.sends[0], new=False)
    assert record_leads() == 0
    assert [TrafficLabel(event.label) for event in events()] == [TrafficLabel.HUMAN]


def test_lead_without_touchpoint_credits_form_activity(database: Engine, frozen: FrozenClock) -> None:
    mailing = make_mailing()
    with db.transaction() as session:
        stranger = make_contact(session).id
    add_submission(stranger, mailing.activity_id)
    assert record_leads() == 1
    assert credit_by_model() == {"first_touch": mailing.activity_id, "last_touch": mailing.activity_id}


def test_scanner_and_old_clicks_earn_no_credit_but_forwarded_mail_does(database: Engine, frozen: FrozenClock) -> None:
    old, scanned, passed_on = make_mailing(), make_mailing(), make_mailing()
    old.click()
    frozen.at += timedelta(days=91)
    scanned.click(user_agent="curl/8")
    passed_on.click()
    collector.collect_once()
    frozen.at += timedelta(minutes=1)
    with db.transaction() as session:
        friend = make_contact(session).id
    add_submission(friend, old.activity_id, passed_on.sends[0])
    record_leads()
    assert set(credit_by_model().values()) == {passed_on.activity_id}


def test_submission_waits_for_its_click_to_be_collected(database: Engine, frozen: FrozenClock) -> None:
    mailing, other = make_mailing(), make_mailing()
    mailing.click()
    frozen.at += timedelta(seconds=3)
    add_submission(mailing.contacts[0], other.activity_id, mailing.sends[0])
    assert record_leads() == 0
    collector.collect_once()
    assert record_leads() == 1
    assert set(credit_by_model().values()) == {mailing.activity_id}
    add_submission(other.contacts[0], mailing.activity_id, other.sends[0])
    assert record_leads() == 0
    frozen.at += timedelta(seconds=11)
    assert record_leads() == 1


def test_landing_page_view_is_no_touchpoint(database: Engine, frozen: FrozenClock) -> None:
    mailing = make_mailing()
    with db.transaction() as session:
        form = make_form(session)
        page_id, slug = form.activity_id, form.slug
    mailing.click()
    frozen.at += timedelta(seconds=1)
    token = keyring().mint_expiring(Purpose.VISIT, mailing.sends[0].to_bytes(8), frozen.at + timedelta(minutes=30))
    wsgi_request(f"/v/{slug}", query=f"k={token}")
    collector.collect_once()
    frozen.at += timedelta(minutes=1)
    add_submission(mailing.contacts[0], page_id, mailing.sends[0])
    assert record_leads() == 1
    assert [HitKind(event.kind) for event in events()] == [HitKind.CLICK, HitKind.VIEW]
    assert credit_by_model() == {"first_touch": mailing.activity_id, "last_touch": mailing.activity_id}
    with db.read_only_session() as session:
        assert session.scalars(select(Conversion.activity_id)).all() == [page_id]


def test_credit_of_scanner_click_moves_to_remaining_touchpoints(database: Engine, frozen: FrozenClock) -> None:
    scanned, read = make_mailing(sent_at=frozen.at), make_mailing()
    with db.transaction() as session:
        session.get_one(Send, scanned.sends[0]).contact_id = read.contacts[0]
    for number in (1, 2, 3):  # A mail gateway; its clicks are settling until the final label.
        scanned.click(number)
    frozen.at += timedelta(minutes=1)
    read.click()
    collector.collect_once()
    frozen.at += timedelta(minutes=1)
    add_submission(read.contacts[0], read.activity_id, read.sends[0])
    assert record_leads() == 1
    assert credit_by_model() == {"first_touch": scanned.activity_id, "last_touch": read.activity_id}
    assert recredit() == 0
    collect_and_label(frozen)
    assert recredit() == 1
    assert recredit() == 0
    assert credit_by_model() == {"first_touch": read.activity_id, "last_touch": read.activity_id}


def test_human_click_keeps_its_credit(database: Engine, frozen: FrozenClock) -> None:
    mailing, other = make_mailing(), make_mailing()
    mailing.click()
    collector.collect_once()
    frozen.at += timedelta(minutes=1)
    add_submission(
        mailing.contacts[0], other.activity_id
    )  # The contact types the page's address, a minute after the click.
    assert record_leads() == 1
    collect_and_label(frozen)
    assert [TrafficLabel(event.label) for event in events()] == [TrafficLabel.HUMAN]
    assert recredit() == 0
    assert set(credit_by_model().values()) == {mailing.activity_id}
    with db.read_only_session() as session:
        assert session.scalars(select(ConversionTouchpoint.settling)).all() == [False]


def test_form_activity_is_credited_when_all_clicks_were_scanners(database: Engine, frozen: FrozenClock) -> None:
    scanned = make_mailing(sent_at=frozen.at)
    for number in (1, 2, 3):
        scanned.click(number)
    collector.collect_once()
    with db.transaction() as session:
        page_id = make_form(session).activity_id
    frozen.at += timedelta(minutes=1)
    add_submission(scanned.contacts[0], page_id)
    assert record_leads() == 1
    assert set(credit_by_model().values()) == {scanned.activity_id}
    collect_and_label(frozen)
    assert recredit() == 1
    assert set(credit_by_model().values()) == {page_id}


def test_manual_lead_is_one_conversion_of_its_activity(database: Engine, frozen: FrozenClock) -> None:
    mailing = make_mailing()
    with db.transaction() as session:
        activity = session.get_one(Activity, mailing.activity_id)
        contact = make_contact(session, email="caller@example.org")
        lead, _new = open_lead(
            session,
            contact_id=contact.id,
            campaign_id=activity.campaign_id,
            activity_id=activity.id,
            source="event",
            owner_id=None,
        )
        lead_id, activity_id = lead.id, activity.id
    assert (record_leads(), record_leads()) == (1, 0)
    with db.read_only_session() as session:
        conversion = session.scalars(select(Conversion)).one()
        assert (conversion.external_id, conversion.lead_id) == (f"lead:{lead_id}", lead_id)
        credits = session.scalars(select(AttributionCredit).order_by(AttributionCredit.model)).all()
        assert {credit.model: credit.activity_id for credit in credits} == dict.fromkeys(AttributionModel, activity_id)
