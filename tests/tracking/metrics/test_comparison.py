"""Tests of comparisons: a campaign with another campaign, and with another period of its own."""

import re
from datetime import timedelta
from decimal import Decimal
from zoneinfo import ZoneInfo

from flask.testing import FlaskClient
from sqlalchemy import Engine
from sqlalchemy.orm import Session

from campaigns import db
from campaigns.accounts.actor import SYSTEM
from campaigns.leads.leads import open_lead
from campaigns.planning.models import Channel
from tests import factories
from tests.conftest import NOON, FrozenClock
from tracking.metrics import comparison, performance


def make_campaign_with_leads(session: Session, name: str, cost: str, *days_ago: int) -> int:
    """Create a campaign with one activity and one lead for each number of days ago; return the campaign's id."""
    campaign = factories.make_campaign(session, name=name)
    page = factories.make_activity(
        session,
        campaign,
        channel=Channel.WEB,
        everybody=False,
        cost=Decimal(cost),
        launched_at=NOON,
        starts_on=NOON.date(),
    )
    for days in days_ago:
        lead, _new = open_lead(
            session,
            contact_id=factories.make_contact(session).id,
            campaign_id=campaign.id,
            activity_id=page.id,
            source="web",
            owner_id=None,
        )
        lead.created_at = NOON - timedelta(days=days)
    session.flush()
    return campaign.id


def test_rows_hold_values_of_both_campaigns(session: Session, frozen: FrozenClock) -> None:
    factories.make_organisation(session)
    mine, theirs = (
        make_campaign_with_leads(session, "Harvest", "90", 0, 1, 9),
        make_campaign_with_leads(session, "Winter", "10", 2),
    )
    counts = [
        performance.campaign_totals(session, SYSTEM, id, comparison.PeriodQuery().report_query(ZoneInfo("UTC")))
        for id in (mine, theirs)
    ]
    rows = {
        metric.key: [one.value for one in two]
        for metric, two in comparison.metric_rows(counts, ("leads", "cost_per_lead"))
    }
    assert rows == {"leads": [3, 1], "cost_per_lead": [Decimal(30), Decimal(10)]}


def row_cells(client: FlaskClient, url: str, label: str) -> list[str]:
    """Return the cell texts of one row of the page's table."""
    answer = client.get(url)
    assert answer.status_code == 200
    row = next(one for one in re.findall(r"<tr.*?</tr>", answer.text, re.DOTALL) if f">{label}</th>" in one)
    found = re.findall(r"<td.*?</td>", row, re.DOTALL)
    return [re.sub(r"\s+", " ", re.sub(r"<[^>]+>", " ", one)).strip() for one in found]


def test_page_shows_both_values_and_difference(
    viewer_client: FlaskClient, database: Engine, frozen: FrozenClock
) -> None:
    with db.transaction() as session:
        mine, theirs = (
            make_campaign_with_leads(session, "Harvest", "90", 0, 1, 9),
            make_campaign_with_leads(session, "Winter", "10", 2),
        )
        built_in = factories.make_campaign(session, built_in=True).id
    url = f"/campaigns/{mine}/comparison"
    assert row_cells(viewer_client, url, "Leads") == ["3"]
    assert row_cells(viewer_client, f"{url}?with={theirs}", "Leads") == ["3", "1", "+200.0%"]
    assert row_cells(viewer_client, f"{url}?with={theirs}", "Open rate") == ["– not measured", "– not measured", "–"]
    # Two of the three leads are from the last 7 days; the other column still shows the whole life.
    assert row_cells(viewer_client, f"{url}?period=7&against=whole", "Leads") == ["2", "3", "-33.3%"]
    assert row_cells(viewer_client, f"{url}?with={theirs}&period=7", "Leads") == ["2", "1", "+100.0%"]
    for wrong in (built_in, 99_999):
        assert viewer_client.get(f"{url}?with={wrong}").status_code == 404
    assert row_cells(viewer_client, f"{url}?with=x&against=never", "Leads")[0] == "3"
