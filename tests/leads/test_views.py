"""Lead pages: list, filters, page, actions, permissions."""

from collections.abc import Callable
from contextlib import AbstractContextManager

import pytest
from flask.testing import FlaskClient
from sqlalchemy import Engine, select

from campaigns import clock, db
from campaigns.accounts.models import Role, User
from campaigns.audience.models import ConsentEntry, Contact
from campaigns.capture.submissions import LeadSource, SubmissionInput, accept_submission
from campaigns.leads.leads import open_lead
from campaigns.leads.models import Lead, LeadStage
from campaigns.planning.models import CampaignStatus, Channel
from tests.factories import make_activity, make_campaign, make_contact, make_form

Counting = Callable[[Engine], AbstractContextManager[list[str]]]


def make_leads(count: int, **values: object) -> list[int]:
    with db.transaction() as session:
        activity = make_activity(session, channel=Channel.SOCIAL, everybody=False)
        ids = []
        for _ in range(count):
            lead, _new = open_lead(
                session,
                contact_id=make_contact(session).id,
                campaign_id=activity.campaign_id,
                activity_id=activity.id,
                source="social",
                owner_id=None,
            )
            for key, value in values.items():
                setattr(lead, key, value)
            ids.append(lead.id)
        return ids


def lead_of(lead_id: int) -> Lead:
    with db.read_only_session() as session:
        return session.get_one(Lead, lead_id)


def test_empty_list_shows_a_hint(coordinator_client: FlaskClient) -> None:
    text = coordinator_client.get("/leads").get_data(as_text=True)
    assert "No leads yet" in text
    assert 'href="/leads/new"' in text
    assert "No lead fits" in coordinator_client.get("/leads?stage=open").get_data(as_text=True)


def test_list_is_paged_with_a_constant_number_of_queries(
    coordinator_client: FlaskClient, database: Engine, count_queries: Counting
) -> None:
    make_leads(3)
    with count_queries(database) as few:
        assert coordinator_client.get("/leads").status_code == 200
    make_leads(60)
    with count_queries(database) as many:
        text = coordinator_client.get("/leads").get_data(as_text=True)
    assert len(many) == len(few) <= 6
    assert text.count('href="/leads/') - text.count('href="/leads/new"') == 25
    assert 'rel="next"' in text


def test_the_list_is_filtered(coordinator_client: FlaskClient) -> None:
    with db.read_only_session() as session:
        owner_id = session.scalars(select(User.id).where(User.role == Role.OWNER)).one()
    (mine,) = make_leads(1, owner_id=owner_id)
    (lost,) = make_leads(1, stage=LeadStage.LOST, closed_at=clock.now())

    def shown(query: str) -> set[int]:
        text = coordinator_client.get(f"/leads?{query}").get_data(as_text=True)
        return {lead_id for lead_id in (mine, lost) if f'href="/leads/{lead_id}"' in text}

    assert shown("") == {mine, lost}
    assert shown("stage=lost") == {lost}
    assert shown("stage=open") == {mine}
    assert shown(f"owner={owner_id}") == {mine}
    assert shown(f"campaign={lead_of(lost).campaign_id}") == {lost}
    assert shown("stage=nonsense&owner=x&campaign=-1&after=%00") == {mine, lost}


def test_lead_page_shows_submissions_and_timeline(coordinator_client: FlaskClient) -> None:
    with db.transaction() as session:
        form = make_form(session)
        lead_id = accept_submission(
            session,
            SubmissionInput(form.id, "0123456789", "ana@example.org", LeadSource("web"), {"first_name": "<Ana>"}),
        ).lead_id
    text = coordinator_client.get(f"/leads/{lead_id}").get_data(as_text=True)
    assert "&lt;Ana&gt;" in text
    assert "Ask for a sample" in text
    assert f'hx-get="/contacts/{lead_of(lead_id).contact_id}/timeline"' in text


def test_stage_owner_and_notes_are_changed(coordinator_client: FlaskClient) -> None:
    (lead_id,) = make_leads(1)
    with db.read_only_session() as session:
        owner_id = session.scalars(select(User.id).where(User.role == Role.OWNER)).one()
    for noun, data in (
        ("stage", {"stage": "customer"}),
        ("owner", {"owner_id": owner_id}),
        ("notes", {"notes": "Won"}),
    ):
        assert coordinator_client.post(f"/leads/{lead_id}/{noun}", data=data).location == f"/leads/{lead_id}"
    lead = lead_of(lead_id)
    assert (lead.stage, lead.owner_id, lead.notes) == (LeadStage.CUSTOMER, owner_id, "Won")
    assert lead.closed_at is not None
    text = coordinator_client.get(f"/leads/{lead_id}").get_data(as_text=True)
    assert "New → Customer" in text


def test_invalid_stage_owner_and_notes_are_reported(coordinator_client: FlaskClient) -> None:
    (lead_id,) = make_leads(1)
    for noun, data in (("stage", {"stage": "married"}), ("owner", {"owner_id": "99999"})):
        page = coordinator_client.post(f"/leads/{lead_id}/{noun}", data=data, follow_redirects=True)
        assert "Please choose" in page.get_data(as_text=True)
    page = coordinator_client.post(f"/leads/{lead_id}/notes", data={"notes": "kept" * 6000})
    assert page.status_code == 422
    assert "keptkept" in page.get_data(as_text=True)
    assert lead_of(lead_id).notes == ""
    assert coordinator_client.get("/leads/999").status_code == 404


def test_lead_entered_by_hand(coordinator_client: FlaskClient) -> None:
    with db.transaction() as session:
        activity = make_activity(session, channel=Channel.SOCIAL, title="Posts", everybody=False)
        over = make_activity(session, make_campaign(session, status=CampaignStatus.FINISHED), title="Over and done")
    page = coordinator_client.get(f"/leads/new?activity={activity.id}").get_data(as_text=True)
    assert f'selected value="{activity.id}"' in page
    assert f"{over.title}</option>" not in page
    data = {"email": "nino@example.net", "first_name": "Nino", "activity_id": activity.id, "owner_id": "", "notes": "?"}
    answer = coordinator_client.post("/leads/new", data=data)
    assert answer.status_code == 303
    with db.read_only_session() as session:
        lead = session.scalars(select(Lead)).one()
        assert (lead.activity_id, lead.source, lead.notes) == (activity.id, "social", "?")
        assert session.scalars(select(ConsentEntry)).all() == []
    again = coordinator_client.post("/leads/new", data=data, follow_redirects=True)
    assert "already" in again.get_data(as_text=True)


@pytest.mark.parametrize(
    "wrong", [{"email": "nino"}, {"email": ""}, {"activity_id": ""}, {"activity_id": "99"}, {"notes": "x" * 20_001}]
)
def test_invalid_input_is_reported(coordinator_client: FlaskClient, wrong: dict[str, str]) -> None:
    with db.transaction() as session:
        activity = make_activity(session, everybody=False)
    data = {"email": "nino@example.net", "first_name": "Kept", "activity_id": activity.id, "owner_id": "", "notes": ""}
    answer = coordinator_client.post("/leads/new", data=data | wrong)
    assert answer.status_code == 422
    assert 'value="Kept"' in answer.get_data(as_text=True)
    with db.read_only_session() as session:
        assert session.scalars(select(Contact)).all() == []


def test_a_viewer_sees_no_people(viewer_client: FlaskClient) -> None:
    (lead_id,) = make_leads(1)
    for url in ("/leads", f"/leads/{lead_id}", "/leads/new"):
        assert viewer_client.get(url).status_code == 403
    assert viewer_client.post("/leads/new").status_code == 403
    for noun in ("stage", "owner", "notes"):
        answer = viewer_client.post(f"/leads/{lead_id}/{noun}", data={"stage": "lost", "owner_id": "", "notes": "x"})
        assert answer.status_code == 403
    assert lead_of(lead_id).stage is LeadStage.NEW
