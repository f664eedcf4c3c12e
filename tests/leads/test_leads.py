"""Service functions of leads: opening, stage, owner, notes, permissions."""

from threading import Barrier, Thread
from typing import Any

import pytest
from sqlalchemy import Engine, func, select
from sqlalchemy.orm import Session

from campaigns import db
from campaigns.accounts.actor import PUBLIC, Actor
from campaigns.accounts.models import AuditLogEntry
from campaigns.audience.models import Contact
from campaigns.errors import Conflict, Forbidden, NotFound, ValidationFailed
from campaigns.leads.leads import assign_owner, change_stage, enter_lead, lead_of, open_lead, set_notes
from campaigns.leads.models import Lead, LeadStage
from campaigns.planning.models import Activity, Channel
from tests.conftest import FrozenClock
from tests.factories import make_activity, make_contact, make_user


@pytest.fixture
def actor(session: Session) -> Actor:
    return Actor.of_user(make_user(session))


@pytest.fixture
def activity(session: Session) -> Activity:
    return make_activity(session, channel=Channel.SOCIAL, everybody=False)


def open_lead_for(session: Session, activity: Activity, contact: Contact) -> tuple[Lead, bool]:
    return open_lead(
        session,
        contact_id=contact.id,
        campaign_id=activity.campaign_id,
        activity_id=activity.id,
        source="social",
        owner_id=None,
    )


def test_one_open_lead_per_contact_and_campaign(session: Session, activity: Activity) -> None:
    contact = make_contact(session)
    lead, new = open_lead_for(session, activity, contact)
    assert (new, lead.stage, lead.source) == (True, LeadStage.NEW, "social")
    assert open_lead_for(session, activity, contact) == (lead, False)
    assert open_lead_for(session, make_activity(session), contact)[1]


def test_a_closed_lead_lets_a_new_one_open(
    session: Session, actor: Actor, activity: Activity, frozen: FrozenClock
) -> None:
    contact = make_contact(session)
    first, _ = open_lead_for(session, activity, contact)
    change_stage(session, actor, first, LeadStage.LOST)
    assert first.closed_at == frozen.at
    second, new = open_lead_for(session, activity, contact)
    assert new
    with pytest.raises(Conflict, match="another open lead"):
        change_stage(session, actor, first, LeadStage.WORKING)
    assert first.stage is LeadStage.LOST
    change_stage(session, actor, second, LeadStage.CUSTOMER)
    change_stage(session, actor, first, LeadStage.WORKING)
    assert first.closed_at is None


def test_closed_at_is_kept_between_closed_stages(
    session: Session, actor: Actor, activity: Activity, frozen: FrozenClock
) -> None:
    lead, _ = open_lead_for(session, activity, make_contact(session))
    change_stage(session, actor, lead, LeadStage.LOST)
    closed = frozen.at
    frozen.at = closed.replace(hour=18)
    change_stage(session, actor, lead, LeadStage.CUSTOMER)
    assert lead.closed_at == closed


def test_work_on_a_lead_is_audited(session: Session, actor: Actor, activity: Activity) -> None:
    lead, _ = open_lead_for(session, activity, make_contact(session))
    owner = make_user(session)
    change_stage(session, actor, lead, LeadStage.WORKING)
    change_stage(session, actor, lead, LeadStage.WORKING)
    assign_owner(session, actor, lead, owner.id)
    assign_owner(session, actor, lead, owner.id)
    set_notes(session, actor, lead, " Called; wants a sample. ")
    set_notes(session, actor, lead, "Called; wants a sample.")
    session.flush()
    verbs = session.scalars(
        select(AuditLogEntry.action).where(AuditLogEntry.subject_kind == "lead").order_by(AuditLogEntry.id)
    )
    assert list(verbs) == ["change stage", "assign", "edit notes"]
    assert (lead.owner_id, lead.notes) == (owner.id, "Called; wants a sample.")


def test_bad_input_is_refused(session: Session, actor: Actor, activity: Activity) -> None:
    lead, _ = open_lead_for(session, activity, make_contact(session))
    with pytest.raises(ValidationFailed):
        assign_owner(session, actor, lead, 987654)
    with pytest.raises(ValidationFailed):
        set_notes(session, actor, lead, "x" * 20_001)
    with pytest.raises(NotFound):
        lead_of(session, 987654)


def test_permissions(session: Session, activity: Activity) -> None:
    lead, _ = open_lead_for(session, activity, make_contact(session))
    for actor in (PUBLIC, Actor.of_user(make_user(session, role="viewer"))):
        with pytest.raises(Forbidden):
            change_stage(session, actor, lead, LeadStage.LOST)
        with pytest.raises(Forbidden):
            assign_owner(session, actor, lead, None)
        with pytest.raises(Forbidden):
            set_notes(session, actor, lead, "x")
        with pytest.raises(Forbidden):
            enter_lead(session, actor, campaign_id=1, activity_id=1, source="social", email="a@example.org")


def test_lead_entered_by_hand(session: Session, actor: Actor, activity: Activity) -> None:
    credited: dict[str, Any] = {"campaign_id": activity.campaign_id, "activity_id": activity.id, "source": "social"}
    lead, new = enter_lead(
        session, actor, **credited, email=" Nino@Example.NET ", first_name="Nino", notes="Asked for a price."
    )
    assert new
    contact = session.get_one(Contact, lead.contact_id)
    assert (contact.email, contact.first_name) == ("nino@example.net", "Nino")
    again, new = enter_lead(
        session, actor, **credited, email="nino@example.net", first_name="Other", last_name="Lomidze", notes="Again."
    )
    assert (again, new) == (lead, False)
    assert lead.notes == "Asked for a price.\n\nAgain."
    assert (contact.first_name, contact.last_name) == ("Nino", "Lomidze")


def test_entering_a_lead_reports_every_problem(session: Session, actor: Actor, activity: Activity) -> None:
    with pytest.raises(ValidationFailed) as caught:
        enter_lead(
            session,
            actor,
            campaign_id=activity.campaign_id,
            activity_id=activity.id,
            source="social",
            email="nobody",
            notes="x" * 20_001,
        )
    assert {problem.field for problem in caught.value.problems} == {"email", "notes"}


def test_two_sessions_open_one_lead(database: Engine) -> None:
    with db.transaction() as session:
        activity, contact = make_activity(session), make_contact(session)
    barrier, results = Barrier(2), []

    def race() -> None:
        barrier.wait()
        with db.transaction() as mine:
            lead, new = open_lead_for(mine, activity, contact)
            results.append((lead.id, new))

    threads = [Thread(target=race) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(new for _, new in results) == [False, True]
    assert len({lead_id for lead_id, _ in results}) == 1
    with db.read_only_session() as session:
        assert session.scalar(select(func.count()).select_from(Lead)) == 1
