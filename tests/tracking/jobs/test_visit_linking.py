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
from tests.tracking.fixtures import set_tracking_consent
from tests.tracking.page_script_site import HOST, Tab, collect_visits, declare_own_hosts
from tracking.conversions import goal_matching
from tracking.conversions.goals import create_goal
from tracking.jobs import lead_conversions, visit_linking
from tracking.models.conversions import Conversion, ConversionTouchpoint, GoalKind
from tracking.models.visits import PendingFormView

FORM = "0123456789abcdef" * 2
SOCIAL = "/?utm_source=facebook&utm_medium=social&utm_campaign=tea"


@pytest.fixture(autouse=True)
def site(database: Engine, frozen: FrozenClock) -> FrozenClock:
    declare_own_hosts()
    return frozen


def make_activities() -> dict[Channel, int]:
    with db.transaction() as session:
        campaign = make_campaign(session, name="Tea")
        made = {channel: make_activity(session, campaign, channel=channel) for channel in (Channel.SOCIAL, Channel.WEB)}
        make_form(session, made[Channel.WEB])
        return {channel: activity.id for channel, activity in made.items()}


def submit_form(activities: dict[Channel, int], level: ConsentLevel) -> int:
    with db.transaction() as session:
        contact = make_contact(session)
        set_tracking_consent(session, contact.id, level, clock.now())
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


def run_jobs() -> None:
    for _ in range(2):  # The jobs are idempotent.
        with db.transaction() as session:
            visit_linking.link_due(session)
            lead_conversions.record_due(session)
            goal_matching.match_due(session)


@pytest.mark.parametrize("level", [ConsentLevel.FULL, ConsentLevel.NONE])
def test_submission_links_visits_to_contact(site: FrozenClock, level: ConsentLevel) -> None:
    activities = make_activities()
    Tab(SOCIAL).report()
    site.at += timedelta(minutes=45)
    Tab("/f/box", extra_fields={"f": FORM}).report()
    collect_visits()
    site.at += timedelta(seconds=5)
    contact = submit_form(activities, level)
    run_jobs()
    found = collect_visits()
    allowed = level is ConsentLevel.FULL
    assert [visit.contact_id for visit in found] == [contact if allowed else None] * 2
    assert [visit.engaged for visit in found] == [False, True]
    with db.read_only_session() as session:
        touches = session.scalars(select(ConversionTouchpoint)).all()
        assert [(one.kind, one.activity_id, one.source_id) for one in touches] == (
            [("visit", activities[Channel.SOCIAL], found[0].id)] if allowed else []
        )
        assert session.scalars(select(PendingFormView)).all() == []


def test_pages_and_events_reach_goals_and_credit_what_brought_the_visit(site: FrozenClock) -> None:
    activities = make_activities()
    with db.transaction() as session:
        create_goal(session, SYSTEM, key="thanks", name="Thanks", kind=GoalKind.PAGE, match="/thanks/*")
        create_goal(session, SYSTEM, key="purchase", name="Purchase", kind=GoalKind.EVENT, match="purchase", once=False)
    site.at += timedelta(seconds=1)
    Tab(SOCIAL).report().navigate("/thanks/1").navigate("/thanks/2").report(
        "e", n="purchase", v=20, c="EUR", e="A-1", x=1
    )
    (visit,) = collect_visits()
    assert visit.engaged
    run_jobs()
    with db.read_only_session() as session:
        found = session.scalars(select(Conversion).order_by(Conversion.goal)).all()
    assert [(one.goal, one.visit_id, one.activity_id, one.amount) for one in found] == [
        ("purchase", visit.id, activities[Channel.SOCIAL], Decimal(20)),
        ("thanks", visit.id, activities[Channel.SOCIAL], None),
    ]


def test_old_form_views_are_deleted(site: FrozenClock) -> None:
    Tab("/f/box", host=HOST, extra_fields={"f": FORM}).report()
    collect_visits()
    site.at += timedelta(days=1, seconds=1)
    with db.transaction() as session:
        visit_linking.delete_old_form_views(session)
        assert session.scalars(select(PendingFormView)).all() == []


def test_embedded_form_belongs_to_visit_of_embedding_page(site: FrozenClock) -> None:
    Tab("/shop").report()
    localhost = Tab("/f/box/embed", host="localhost", referrer=f"https://{HOST}/")
    localhost.report(b=1, f=FORM)
    (visit,) = collect_visits()
    assert visit.pages == 1
    with db.read_only_session() as session:
        assert session.scalars(select(PendingFormView.visit_id)).all() == [visit.id]
