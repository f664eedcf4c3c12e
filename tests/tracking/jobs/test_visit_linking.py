"""Tests of visit linking: submissions assign visits to contacts, pages and events of visits reach goals."""

from datetime import timedelta
from decimal import Decimal

import pytest
from sqlalchemy import Engine, select

from campaigns import clock, db
from campaigns.accounts.actor import SYSTEM
from campaigns.audience.models import ConsentLevel
from campaigns.capture.models import Submission
from campaigns.leads.models import Lead
from campaigns.planning.models import Channel
from tests.conftest import FrozenClock
from tests.factories import make_activity, make_campaign, make_contact, make_form
from tests.tracking.fixtures import allow
from tests.tracking.page_script_site import HOST, Tab, open_site, visits
from tracking.conversions import goal_matching
from tracking.conversions.goals import create_goal
from tracking.jobs import lead_conversions, visit_linking
from tracking.models.conversions import Conversion, ConversionTouchpoint, GoalKind
from tracking.models.visits import PendingFormView

FORM = "0123456789abcdef" * 2
SOCIAL = "/?utm_source=facebook&utm_medium=social&utm_campaign=tea"


@pytest.fixture(autouse=True)
def site(database: Engine, frozen: FrozenClock) -> FrozenClock:
    open_site()
    return frozen


def plan() -> dict[Channel, int]:
    with db.transaction() as session:
        campaign = make_campaign(session, name="Tea")
        made = {channel: make_activity(session, campaign, channel=channel) for channel in (Channel.SOCIAL, Channel.WEB)}
        make_form(session, made[Channel.WEB])
        return {channel: activity.id for channel, activity in made.items()}


def send_form(activities: dict[Channel, int], level: ConsentLevel) -> int:
    with db.transaction() as session:
        contact = make_contact(session)
        allow(session, contact.id, level, clock.now())
        lead = Lead(
            contact_id=contact.id,
            campaign_id=1,
            activity_id=activities[Channel.WEB],
            source="web",
            created_at=clock.now(),
        )
        session.add(lead)
        session.flush()
        session.add(
            Submission(
                external_id=f"{FORM}-0123456789abcdef",
                form_id=1,
                campaign_id=1,
                activity_id=activities[Channel.WEB],
                contact_id=contact.id,
                lead_id=lead.id,
                new_lead=True,
                at=clock.now(),
                answers={},
            )
        )
        return contact.id


def tick() -> None:
    for _ in range(2):  # The jobs are idempotent.
        with db.transaction() as session:
            visit_linking.join_due(session)
            lead_conversions.record_due(session)
            goal_matching.notice_due(session)


@pytest.mark.parametrize("level", [ConsentLevel.FULL, ConsentLevel.NONE])
def test_a_form_says_whose_visit_it_was(site: FrozenClock, level: ConsentLevel) -> None:
    activities = plan()
    Tab(SOCIAL).tell()
    site.at += timedelta(minutes=45)
    Tab("/f/box", more={"f": FORM}).tell()
    visits()
    site.at += timedelta(seconds=5)
    contact = send_form(activities, level)
    tick()
    found = visits()
    allowed = level is ConsentLevel.FULL
    assert [visit.contact_id for visit in found] == [contact if allowed else None] * 2
    assert [visit.engaged for visit in found] == [False, True]
    with db.reading() as session:
        touches = session.scalars(select(ConversionTouchpoint)).all()
        assert [(one.kind, one.activity_id, one.source_id) for one in touches] == (
            [("visit", activities[Channel.SOCIAL], found[0].id)] if allowed else []
        )
        assert session.scalars(select(PendingFormView)).all() == []


def test_pages_and_events_reach_goals_and_credit_what_brought_the_visit(site: FrozenClock) -> None:
    activities = plan()
    with db.transaction() as session:
        create_goal(session, SYSTEM, key="thanks", name="Thanks", kind=GoalKind.PAGE, match="/thanks/*")
        create_goal(session, SYSTEM, key="purchase", name="Purchase", kind=GoalKind.EVENT, match="purchase", once=False)
    site.at += timedelta(seconds=1)
    Tab(SOCIAL).tell().go("/thanks/1").go("/thanks/2").tell("e", n="purchase", v=20, c="EUR", e="A-1", x=1)
    (visit,) = visits()
    assert visit.engaged
    tick()
    with db.reading() as session:
        found = session.scalars(select(Conversion).order_by(Conversion.goal)).all()
    assert [(one.goal, one.visit_id, one.activity_id, one.amount) for one in found] == [
        ("purchase", visit.id, activities[Channel.SOCIAL], Decimal(20)),
        ("thanks", visit.id, activities[Channel.SOCIAL], None),
    ]


def test_forms_that_nobody_sends_are_forgotten(site: FrozenClock) -> None:
    Tab("/f/box", host=HOST, more={"f": FORM}).tell()
    visits()
    site.at += timedelta(days=1, seconds=1)
    with db.transaction() as session:
        visit_linking.forget_old(session)
        assert session.scalars(select(PendingFormView)).all() == []


def test_a_form_inside_anothers_page_belongs_to_that_pages_visit(site: FrozenClock) -> None:
    Tab("/shop").tell()
    localhost = Tab("/f/box/embed", host="localhost", referrer=f"https://{HOST}/")
    localhost.tell(b=1, f=FORM)
    (visit,) = visits()
    assert visit.pages == 1
    with db.reading() as session:
        assert session.scalars(select(PendingFormView.visit_id)).all() == [visit.id]
