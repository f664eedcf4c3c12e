"""Tests of changes by users during a launch, and of what the progress page shows then."""

import pytest
from flask.testing import FlaskClient
from sqlalchemy import Engine, delete, select, update

from campaigns import clock, db
from campaigns.accounts.actor import SYSTEM
from campaigns.audience import lists, suppression
from campaigns.audience.models import ConsentPurpose, Contact, ListMember, SuppressionReason
from campaigns.content.models import Message
from campaigns.delivery.models import Relay
from campaigns.delivery.queue import batch as queue_batch
from campaigns.delivery.queue import scheduler
from campaigns.delivery.queue.expansion import expand, expand_chunk
from campaigns.delivery.relays import availability, service
from campaigns.delivery.smtp.address import TlsMode
from campaigns.delivery.worker.worker import deliver
from campaigns.errors import Conflict
from campaigns.mail_catcher.store import MailStore
from campaigns.planning import launch
from campaigns.planning.models import Activity, ActivityStatus
from tests.delivery.launched_activity import count_mails, count_states, grant_consent, make_mailing
from tests.factories import make_activity, make_contact, make_list, make_message


def mailing(size: int) -> int:
    with db.transaction() as session:
        return make_mailing(session, size).id


def run_tick() -> None:
    with db.transaction() as session:
        scheduler.apply_due_changes(session)


def progress_page_text(client: FlaskClient, activity_id: int) -> str:
    return client.get(f"/activities/{activity_id}/progress").text


def cancel(activity_id: int) -> None:
    with db.transaction() as session:
        launch.cancel(session, SYSTEM, session.get_one(Activity, activity_id))


def test_all_recipients_suppressed_after_launch(coordinator_client: FlaskClient) -> None:
    activity_id = mailing(3)
    with db.transaction() as session:
        for address in session.scalars(select(Contact.email)).all():
            suppression.suppress(session, SYSTEM, address, SuppressionReason.MANUAL)
    expand(activity_id)
    run_tick()
    assert count_states(activity_id) == {"skipped": 3}
    page = progress_page_text(coordinator_client, activity_id)
    assert "since the preflight everybody has come to be left out" in page
    with db.read_only_session() as session:
        assert session.get_one(Activity, activity_id).status is ActivityStatus.FINISHED


def test_list_emptied_after_launch(coordinator_client: FlaskClient) -> None:
    activity_id = mailing(2)
    with db.transaction() as session:
        session.execute(delete(ListMember))
    expand(activity_id)
    run_tick()
    assert "the audience was empty when it began" in progress_page_text(coordinator_client, activity_id)


def test_list_of_a_launch_cannot_be_deleted(coordinator_client: FlaskClient) -> None:
    activity_id = mailing(2)
    with db.transaction() as session:
        list_id = session.get_one(Activity, activity_id).email.list_id
        assert list_id is not None
        with pytest.raises(Conflict, match="An activity is meant for this list"):
            lists.delete_list(session, SYSTEM, list_id)


@pytest.mark.parametrize(("status", "words"), [("paused", "goes on when you resume it"), ("cancelled", "got no mail")])
def test_stopped_before_expansion_is_complete(coordinator_client: FlaskClient, status: str, words: str) -> None:
    activity_id = mailing(4)
    expand_chunk(activity_id, 2)
    with db.transaction() as session:
        session.execute(update(Activity).where(Activity.id == activity_id).values(status=ActivityStatus(status)))
    expand(activity_id)
    run_tick()
    assert sum(count_states(activity_id).values()) == 2
    assert words in progress_page_text(coordinator_client, activity_id)


def test_cancelled_while_a_batch_is_claimed(database: Engine, catcher: int) -> None:
    activity_id = mailing(6)
    expand(activity_id)
    batch = queue_batch.claim(activity_id, 4)
    assert batch is not None
    cancel(activity_id)
    run_tick()
    assert count_states(activity_id) == {"sending": 4, "cancelled": 2}, "what is claimed gets its outcome first"
    batch.record()
    run_tick()
    assert count_states(activity_id) == {"cancelled": 6}
    assert deliver(activity_id) == 0
    assert not count_mails()


def test_message_edited_after_launch(coordinator_client: FlaskClient, catcher: int) -> None:
    mjml = "<mjml><mj-body><mj-section><mj-column><mj-text>%s</mj-text></mj-column></mj-section></mj-body></mjml>"
    with db.transaction() as session:
        people = make_list(session, grant_consent(session, make_contact(session), ConsentPurpose.EMAIL))
        message = make_message(session, subject="Before", mjml=mjml % "Old")
        activity_id = make_activity(session, everybody=False, list_id=people.id, message_id=message.id).id
    coordinator_client.post(f"/activities/{activity_id}/preflight")
    coordinator_client.post(f"/activities/{activity_id}/launch")
    notice = "has been changed since the launch"
    assert notice not in coordinator_client.get(f"/activities/{activity_id}").text
    with db.transaction() as session:
        session.execute(update(Message).values(subject="Afterwards", mjml=mjml % "New"))
    page = coordinator_client.get(f"/activities/{activity_id}").text
    assert notice in page
    assert "Before" in page
    expand(activity_id)
    assert deliver(activity_id) == 1
    (caught,) = MailStore().mails()
    assert caught.subject == "Before"


def test_relay_deleted_during_launch(database: Engine, catcher: int) -> None:
    """After the removal the next run uses the remaining relay, here that of the settings; no send is lost."""
    activity_id = mailing(5)
    expand(activity_id)
    with db.transaction() as session:
        relay = Relay(name="Dead", host="127.0.0.1", port=1, tls=TlsMode.OFF, created_at=clock.now())
        session.add(relay)
    assert deliver(activity_id) == 0
    with db.transaction() as session:
        assert not availability.usable_relays(session), "it is left alone for a while"
        service.delete_relay(session, SYSTEM, session.get_one(Relay, relay.id))
    assert deliver(activity_id) == 5
    assert count_states(activity_id) == {"sent": 5}
