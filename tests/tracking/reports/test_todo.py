"""Tests of the start page's to-do list: open tasks of a user, limited to what the role allows."""

from datetime import timedelta
from zoneinfo import ZoneInfo

from flask.testing import FlaskClient
from sqlalchemy.orm import Session

from campaigns import clock, db
from campaigns.accounts import audit
from campaigns.accounts.actor import SYSTEM, Actor
from campaigns.accounts.models import Role
from campaigns.delivery.bounces.effects import circuit_breaker
from campaigns.delivery.models import Send, SendState
from campaigns.leads.models import Lead
from campaigns.planning.models import ActivityStatus
from tests import factories
from tests.conftest import FrozenClock
from tracking.reports.todo import build_todo_list

UTC = ZoneInfo("UTC")


def test_open_tasks_of_owner_and_viewer(session: Session, frozen: FrozenClock) -> None:
    factories.make_organisation(session, postal_address="1 Quay")
    owner = factories.make_user(session, Role.OWNER)
    campaign = factories.make_campaign(session)
    today = clock.now().date()
    late = factories.make_activity(session, campaign, starts_on=today - timedelta(days=3))
    factories.make_activity(session, campaign, starts_on=today + timedelta(days=8))
    review = factories.make_activity(session, campaign, status=ActivityStatus.REVIEW)
    sent = factories.make_activity(session, campaign, status=ActivityStatus.FINISHED, launched_at=clock.now())
    halted = factories.make_activity(session, campaign, status=ActivityStatus.PAUSED, launched_at=clock.now())
    factories.make_activity(session, campaign, status=ActivityStatus.PAUSED, launched_at=clock.now())  # by a user
    audit.record(
        session,
        SYSTEM,
        circuit_breaker.AUDIT_VERB,
        "activity",
        halted.id,
        why="bounces",
        answered=200,
        bounced=11,
        complained=0,
    )
    contact = factories.make_contact(session)
    session.add(
        Send(
            id=sent.id << 32 | 1,
            activity_id=sent.id,
            contact_id=contact.id,
            address=contact.email,
            recipient_key=str(contact.id),
            state=SendState.UNKNOWN,
            due_at=clock.now(),
        )
    )
    session.add(
        Lead(
            contact_id=contact.id, campaign_id=campaign.id, activity_id=sent.id, source="event", created_at=clock.now()
        )
    )
    session.flush()
    found = build_todo_list(session, Actor.of_user(owner), UTC)
    assert [one.id for one in found.due_to_start] == [late.id]
    assert [one.id for one in found.reviews] == [review.id]
    assert [(one.activity_id, one.count) for one in found.unresolved] == [(sent.id, 1)]
    assert [(one.id, rates.exceeded_limit) for one, rates in found.tripped] == [(halted.id, "bounces")]
    assert found.new_leads == 1
    assert not found.is_empty
    viewer = build_todo_list(session, Actor.of_user(factories.make_user(session, Role.VIEWER)), UTC)
    assert (viewer.new_leads, viewer.imports, viewer.reviews, viewer.due_to_start) == (0, [], [], [])


def test_start_page_of_empty_installation(owner_client: FlaskClient) -> None:
    assert owner_client.get("/").headers["Location"] == "/today"
    page = owner_client.get("/today").text
    assert "Import your contacts" in page
    assert "Plan your first campaign" in page


def test_the_start_page_of_a_viewer(viewer_client: FlaskClient) -> None:
    with db.transaction() as session:
        factories.make_campaign(session)
    page = viewer_client.get("/today").text
    assert "Nothing waits for you" in page
    assert "/imports" not in page
