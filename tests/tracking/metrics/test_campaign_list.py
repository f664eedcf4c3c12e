"""Tests of the campaign list: filters, sorting by every metric, archiving and the number of queries."""

from datetime import date, timedelta
from decimal import Decimal
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from flask.testing import FlaskClient
from sqlalchemy import Engine, select

from campaigns import db
from campaigns.accounts.actor import SYSTEM
from campaigns.accounts.models import User
from campaigns.planning.models import Activity, Campaign, CampaignStatus, Channel, Objective
from tests import factories
from tests.conftest import FrozenClock
from tests.tracking.report_fixture import Company, at
from tests.tracking.views.test_reports import CountQueries, get_text, make_empty_campaign
from tracking.metrics import campaign_list
from tracking.metrics.registry import reading


@pytest.fixture
def company(database: Engine) -> None:
    with db.transaction() as session:
        company = Company(session, contacts=24)
        for n in range(4):
            company.campaign(f"Campaign {n}", at(n))
            company.random.random()
        factories.make_campaign(session, name="Nothing yet")
        bare = factories.make_campaign(session, name="Costs only")
        factories.make_activity(session, bare, channel=Channel.ADS, cost=Decimal("10.00"), everybody=False)


@pytest.mark.parametrize("key", campaign_list.LIST_METRICS)
def test_sort_order_equals_registry_values(company: None, key: str) -> None:
    assert key in campaign_list.sortable_metrics()
    ascending = key in campaign_list.ASCENDING_METRICS
    with db.read_only_session() as session:
        query, keys = campaign_list.order_by_metric(
            session, campaign_list.campaigns_query(SYSTEM, campaign_list.CampaignFilter()), key, ascending=ascending
        )
        campaigns = list(session.scalars(query.order_by(*keys)))
        lines = campaign_list.campaign_rows(session, campaigns, ZoneInfo("UTC"))
        values = [reading(key, line.counts).value for line in lines]
    known = [float(value) for value in values if value is not None]
    assert known == sorted(known, reverse=not ascending)
    assert values[len(known) :] == [None] * (len(values) - len(known))
    assert len(known) >= 3


def test_sorted_pages_hold_each_campaign_once(
    viewer_client: FlaskClient, company: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tracking.views.reports.campaign_list.PAGE_SIZE", 2)
    for key in campaign_list.sortable_metrics():
        url, names = f"/campaigns?sort={key}", []
        for _ in range(3):
            page = get_text(viewer_client, url)
            names += [part.split("<")[0] for part in page.split('/performance">')[1:]]
            url = page.split('rel="next" href="')[1].split('"')[0].replace("&amp;", "&") if 'rel="next"' in page else ""
        assert url == ""
        assert len(set(names)) == len(names) == 6, (key, names)


def test_filters(viewer_client: FlaskClient) -> None:
    with db.transaction() as session:
        owner = session.scalars(select(User)).first()
        assert owner is not None
        spring = factories.make_campaign(
            session,
            name="Spring",
            objective=Objective.SALES,
            owner_id=owner.id,
            starts_on=date(2020, 3, 1),
            ends_on=date(2020, 5, 1),
        )
        factories.make_activity(session, spring, channel=Channel.VIDEO, everybody=False)
        owner_id = owner.id
    make_empty_campaign(name="Autumn", objective=Objective.LEADS)
    for query in (f"owner={owner_id}", "objective=sales", "channel=video", "period=2020-04-30..2020-06-30"):
        page = get_text(viewer_client, f"/campaigns?{query}")
        assert "Spring" in page, query
        assert ("Autumn" in page) == query.startswith("period"), query  # A campaign without dates matches any period.
    assert "Spring" not in get_text(viewer_client, "/campaigns?period=28")
    for odd in ("owner=x", "owner=9" * 30, "channel=%00", "period=2020-99-99..1", "sort=drop", "archived=2"):
        assert "Autumn" in get_text(viewer_client, f"/campaigns?{odd}"), odd


def test_archived_campaigns_are_listed_by_filter_only(
    coordinator_client: FlaskClient, viewer_client: FlaskClient
) -> None:
    active, over = (
        make_empty_campaign(name="Runs", status=CampaignStatus.ACTIVE),
        make_empty_campaign(name="Over", status=CampaignStatus.FINISHED),
    )
    assert viewer_client.post(f"/campaigns/{over}/archive").status_code == 403
    for campaign_id in (active, over, over):
        assert coordinator_client.post(f"/campaigns/{campaign_id}/archive").status_code == 303
    page = get_text(coordinator_client, "/campaigns")
    assert "Runs" in page
    assert "Over<" not in page
    archived = get_text(coordinator_client, "/campaigns?archived=1")
    assert "Over<" in archived
    assert "Runs<" not in archived
    coordinator_client.post(f"/campaigns/{over}/unarchive")
    assert "Over<" in get_text(coordinator_client, "/campaigns")


def test_list_query_count_is_constant(
    viewer_client: FlaskClient, company: None, database: Engine, count_queries: CountQueries
) -> None:
    query_counts: dict[str, Any] = {}
    for url in ("/campaigns?sort=open_rate", "/campaigns?sort=open_rate&q=Nothing"):
        get_text(viewer_client, url)
        with count_queries(database) as queries:
            get_text(viewer_client, url)
        query_counts[url] = len([query for query in queries if query != "BEGIN"])
    assert len(set(query_counts.values())) == 1
    assert max(query_counts.values()) <= 13, query_counts


def test_archived_campaigns_keep_their_counts(company: None, frozen: FrozenClock) -> None:
    with db.transaction() as session:
        campaign = session.scalars(select(Campaign)).first()
        assert campaign is not None
        before = campaign_list.campaign_rows(session, [campaign], ZoneInfo("UTC"))[0].counts
        campaign.archived_at = frozen.at + timedelta(days=1)
        session.flush()
        assert campaign_list.campaign_rows(session, [campaign], ZoneInfo("UTC"))[0].counts == before
        assert session.scalars(select(Activity)).first() is not None
