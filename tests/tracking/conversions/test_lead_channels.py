"""Tests of the last-touch channel in the list of leads."""

from flask.testing import FlaskClient
from sqlalchemy import Engine
from sqlalchemy.orm import Session

from campaigns import db
from campaigns.accounts.actor import SYSTEM
from campaigns.leads.leads import open_lead
from campaigns.planning.models import Channel
from tests import factories
from tests.conftest import NOON
from tracking.conversions.attribution import Touchpoint, assign_credit
from tracking.conversions.lead_channels import last_touch_activities
from tracking.models.conversions import Conversion


def make_leads_with_and_without_touch(session: Session) -> tuple[int, int]:
    """Ids of two leads of a form: one with a touchpoint of a mail, one without touchpoints."""
    campaign = factories.make_campaign(session)
    mail = factories.make_activity(session, campaign, title="Invitation")
    page = factories.make_activity(session, campaign, channel=Channel.WEB, everybody=False, title="Tasting page")
    ids = []
    for touches in ([Touchpoint(mail.id, "click", 1, NOON)], []):
        lead, _new = open_lead(
            session,
            contact_id=factories.make_contact(session).id,
            campaign_id=campaign.id,
            activity_id=page.id,
            source="web",
            owner_id=None,
        )
        conversion = Conversion(
            external_id=f"submission:{lead.id}",
            campaign_id=campaign.id,
            activity_id=page.id,
            lead_id=lead.id,
            at=NOON,
            contact_id=lead.contact_id,
        )
        session.add(conversion)
        session.flush()
        assign_credit(session, conversion, touches)
        ids.append(lead.id)
    return ids[0], ids[1]


def test_last_touch_activities_by_lead(session: Session) -> None:
    by_mail, by_page = make_leads_with_and_without_touch(session)
    found = last_touch_activities(session, SYSTEM, [by_mail, by_page, 99_999])
    assert {id: activity.channel for id, activity in found.items()} == {by_mail: Channel.EMAIL, by_page: Channel.WEB}


def test_lead_list_loads_channels_in_one_request(coordinator_client: FlaskClient, database: Engine) -> None:
    with db.transaction() as session:
        by_mail, by_page = make_leads_with_and_without_touch(session)
    text = coordinator_client.get("/leads").text
    assert f'hx-get="/leads/channels?lead={by_page}&amp;lead={by_mail}"' in text
    answer = coordinator_client.get(f"/leads/channels?lead={by_page}&lead={by_mail}&lead=x&lead={'9' * 30}").text
    assert answer.count("hx-swap-oob") == 2
    assert "Last touch: Invitation" in answer.split(f"lead-channel-{by_mail}")[1].split("</span>")[0]


def test_viewer_may_not_load_lead_channels(viewer_client: FlaskClient) -> None:
    assert viewer_client.get("/leads/channels?lead=1").status_code == 403
