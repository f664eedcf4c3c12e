"""Tests of erasure: counts stay, and only the keyed hash of the address is left."""

from pathlib import Path

from flask.testing import FlaskClient
from sqlalchemy import Engine, func, select
from sqlalchemy.orm import Session

from campaigns import clock, db
from campaigns.accounts.actor import SYSTEM
from campaigns.audience import erasure, suppression
from campaigns.audience.contacts import update_contact
from campaigns.audience.models import Contact, Suppression, SuppressionReason
from campaigns.capture.submissions import LeadSource, SubmissionInput, accept_submission
from campaigns.content.models import Message, MessageVersion
from campaigns.delivery.models import ERASED_ADDRESS, Send, SendState
from campaigns.delivery.queue import claims
from campaigns.delivery.queue.expansion import expand
from campaigns.delivery.sends import progress
from campaigns.delivery.transactional import enqueue, outbox_dispatch, test_sends
from campaigns.outbox import OutboxMail
from campaigns.planning.models import Activity
from campaigns.tokens import Purpose, mint_send_token
from tests.delivery.launched_activity import grant_consent, load_sends, make_mailing
from tests.factories import make_contact, make_form, make_user

ROOT = Path(__file__).parents[3]


def dump_rows(session: Session) -> str:
    """All rows of all tables as text."""
    return "\n".join(
        f"{table.name}: {tuple(row)!r}"
        for table in db.Base.metadata.sorted_tables
        for row in session.execute(select(table))
    )


def mailing_to_ann() -> tuple[int, int]:
    """An expanded email activity to three contacts, the first of them Ann. Returns (activity id, Ann's contact id)."""
    with db.transaction() as session:
        activity = make_mailing(session, 3)
        ann = session.scalars(select(Contact).order_by(Contact.id)).first()
        assert ann is not None
        ann.email, ann.first_name = "ann.bell@example.org", "Ann"
        found = activity.id, ann.id
    expand(found[0])
    return found


def make_rows_with_address(session: Session, activity_id: int) -> None:
    """Create every kind of row that holds Ann's address: bounce, suppression, test mail, form submission."""
    version = session.get_one(MessageVersion, session.get_one(Activity, activity_id).email.version_id)
    send = session.scalars(select(Send).where(Send.activity_id == activity_id).order_by(Send.id)).first()
    assert send is not None
    send.state, send.reply, send.sent_at = SendState.BOUNCED, "550 <ann.bell@example.org> unknown", clock.now()
    suppression.suppress(session, SYSTEM, "ann.bell@example.org", SuppressionReason.BOUNCED, send.reply)
    enqueue.enqueue_send(session, "test", "ann.bell@example.org", "early", version_id=version.id).state = SendState.SENT
    owner = make_user(session)
    form = make_form(session, notify_owner=True)
    accept_submission(
        session,
        SubmissionInput(
            form.id,
            "0123456789abcdef",
            "Ann.Bell@example.org",
            LeadSource("web", owner.id),
            {"first_name": "Ann"},
            True,
        ),
    )
    session.flush()


def test_only_the_hash_of_the_address_is_left(database: Engine) -> None:
    activity_id, contact_id = mailing_to_ann()
    with db.transaction() as session:
        make_rows_with_address(session, activity_id)
        outbox_dispatch.queue_outbox_mail(session)
    with db.read_only_session() as session:
        assert dump_rows(session).count("ann.bell@example.org") > 5
        before = progress.count_by_state(session, activity_id)
    with db.transaction() as session:
        erasure.erase_contact(session, SYSTEM, contact_id)
    with db.read_only_session() as session:
        dump = dump_rows(session)
        assert "ann.bell" not in dump.lower()
        assert "'Ann" not in dump
        assert progress.count_by_state(session, activity_id) == before
        hashed = session.scalars(select(Suppression.address_hash)).all()
        assert hashed == [suppression.address_hash("ann.bell@example.org")]
    first = load_sends(activity_id)[0]
    assert (first.address, first.contact_id, first.recipient_key) == (ERASED_ADDRESS, None, f"c:{contact_id}")


def test_recipient_keys_of_erased_contacts_stay_unique(database: Engine) -> None:
    with db.transaction() as session:
        version_id = session.get_one(Activity, make_mailing(session, 1).id).email.version_id
        people = [make_contact(session) for _ in range(2)]
        for each in people:
            enqueue.enqueue_send(session, "test", each.email, "same", contact_id=each.id, version_id=version_id)
        for each in people:
            erasure.erase_contact(session, SYSTEM, each.id)
        keys = session.scalars(select(Send.recipient_key)).all()
    assert len(set(keys)) == 2
    assert all(key.startswith("a:erased ") for key in keys)


def test_unsent_sends_are_skipped(database: Engine) -> None:
    activity_id, contact_id = mailing_to_ann()
    with db.transaction() as session:
        erasure.erase_contact(session, SYSTEM, contact_id)
    assert [send.state for send in load_sends(activity_id)] == [SendState.SKIPPED, SendState.QUEUED, SendState.QUEUED]
    with db.transaction() as session:
        assert len(claims.claim(session, activity_id, "batch", 10)) == 2


def test_contact_ids_are_not_reused(session: Session) -> None:
    """With a reused id the next contact would have the erased one's recipient key ``c:<id>`` and not be mailed."""
    ann = make_contact(session)
    erasure.erase_contact(session, SYSTEM, ann.id)
    assert make_contact(session).id > ann.id


def test_earlier_address_is_erased(database: Engine) -> None:
    _, contact_id = mailing_to_ann()
    with db.transaction() as session:
        suppression.suppress(session, SYSTEM, "ann.bell@example.org", SuppressionReason.BOUNCED)
        update_contact(session, SYSTEM, contact_id, email="ann@example.net")
        erasure.erase_contact(session, SYSTEM, contact_id)
    with db.read_only_session() as session:
        assert "ann.bell" not in dump_rows(session)
        assert "ann@example.net" not in dump_rows(session)


def test_earlier_address_of_another_contact_is_kept(database: Engine) -> None:
    _, contact_id = mailing_to_ann()
    with db.transaction() as session:
        suppression.suppress(session, SYSTEM, "ann.bell@example.org", SuppressionReason.BOUNCED)
        update_contact(session, SYSTEM, contact_id, email="ann@example.net")
        other = grant_consent(session, make_contact(session, email="ann.bell@example.org"))
        erasure.erase_contact(session, SYSTEM, contact_id)
        assert suppression.reason_for(session, other.email) is SuppressionReason.BOUNCED


def test_system_mail_to_a_user_is_kept(database: Engine) -> None:
    with db.transaction() as session:
        make_mailing(session, 1)
        person = make_user(session)
        contact = make_contact(session, email=person.email)
        session.add(OutboxMail(kind="password", address=person.email, context={}, created_at=clock.now()))
        session.flush()
        (send,) = outbox_dispatch.queue_outbox_mail(session)
        erasure.erase_contact(session, SYSTEM, contact.id)
        session.refresh(send)
        assert (send.address, send.state) == (person.email, SendState.QUEUED)


def test_lead_notification_is_not_sent_after_erasure(database: Engine) -> None:
    activity_id, contact_id = mailing_to_ann()
    with db.transaction() as session:
        make_rows_with_address(session, activity_id)
        erasure.erase_contact(session, SYSTEM, contact_id)
        assert outbox_dispatch.queue_outbox_mail(session) == []


def test_the_audit_trail_of_a_test_mail_names_the_send(database: Engine) -> None:
    with db.transaction() as session:
        activity = make_mailing(session, 1)
        message = session.get_one(Message, activity.email.message_id)
        test_sends.send_tests(session, SYSTEM, message, "somebody@example.org")
        session.flush()
        audited = session.execute(select(db.Base.metadata.tables["audit_log"])).all()
    assert "somebody@example.org" not in repr(audited)


def test_unsubscribe_link_works_after_erasure(client: FlaskClient) -> None:
    activity_id, contact_id = mailing_to_ann()
    with db.transaction() as session:
        erasure.erase_contact(session, SYSTEM, contact_id)
    where = f"/u/{mint_send_token(Purpose.UNSUBSCRIBE, load_sends(activity_id)[0].id)}"
    for answer in (client.get(where), client.post(where), client.post(f"{where}/undo")):
        assert answer.status_code == 200
        assert "was erased" in answer.text
    with db.read_only_session() as session:
        assert session.scalar(select(func.count()).select_from(Suppression)) == 1
