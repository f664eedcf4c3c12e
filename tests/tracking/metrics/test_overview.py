"""Tests of the overview: agreement with campaign pages, periods, and values that are not measured."""

from datetime import date, timedelta
from decimal import Decimal
from zoneinfo import ZoneInfo

import pytest
from flask.testing import FlaskClient
from sqlalchemy import Engine

from campaigns import db
from campaigns.accounts.actor import PUBLIC, SYSTEM
from campaigns.errors import Forbidden
from tests import factories
from tests.conftest import NOON, FrozenClock
from tests.tracking.conversions.test_goals import make_goal, match_goals, report
from tests.tracking.report_fixture import Company, at
from tests.tracking.views.test_reports import CountQueries, get_text
from tracking.counters.periods import Period, parse_period
from tracking.metrics import overview
from tracking.metrics.performance import campaign_performance

WIDE = Period(date(2020, 1, 1), date(2027, 12, 31))
UTC = ZoneInfo("UTC")


def seed_campaigns(number: int = 2) -> list[int]:
    with db.transaction() as session:
        company = Company(session, contacts=30)
        return [company.campaign(f"Campaign {n}", at(n)).id for n in range(number)]


def test_overview_equals_sum_of_campaigns(database: Engine, frozen: FrozenClock) -> None:
    ids = seed_campaigns()
    with db.read_only_session() as session:
        found = overview.overview(session, SYSTEM, WIDE, UTC)
        pages = [campaign_performance(session, SYSTEM, id).counts for id in ids]
    assert found.now.leads == sum(page.leads for page in pages) == sum(found.trend.leads)
    assert found.now.conversions == sum(page.conversions for page in pages) == sum(found.trend.conversions)
    assert found.now.cost == sum((page.cost or Decimal(0) for page in pages), Decimal(0))
    assert sum(line.now.leads for line in found.channels) == found.now.leads
    assert sum(line.now.leads for line in found.campaigns) == found.now.leads
    assert sum(line.now.conversions for line in found.goals) == found.now.conversions
    assert found.before.leads == 0
    assert found.direct_traffic.direct is None


@pytest.mark.parametrize("zone", ["Asia/Tehran", "Europe/Paris", "Asia/Tbilisi"])
def test_adjacent_periods_add_up(database: Engine, frozen: FrozenClock, zone: str) -> None:
    seed_campaigns()
    with db.read_only_session() as session:
        whole = overview.overview(session, SYSTEM, WIDE, ZoneInfo(zone)).now
        day = at(30).date()
        parts = [
            overview.overview(session, SYSTEM, Period(first, last), ZoneInfo(zone)).now
            for first, last in ((date(2020, 1, 1), day), (day + timedelta(days=1), date(2027, 12, 31)))
        ]
    assert sum(part.leads for part in parts) == whole.leads
    assert sum(part.conversions for part in parts) == whole.conversions


def test_conversion_without_campaign_is_counted(database: Engine, frozen: FrozenClock) -> None:
    with db.transaction() as session:
        make_goal(session)
        report(session, value="40")
    match_goals()
    with db.read_only_session() as session:
        found = overview.overview(session, SYSTEM, parse_period("7", NOON.date()), UTC)
    assert (found.now.conversions, found.now.revenue) == (1, Decimal(40))
    assert [(line.title, line.now.conversions) for line in found.goals] == [("Purchase", 1)]
    assert found.campaigns == []


def test_costs_are_spread_over_activity_days(database: Engine, frozen: FrozenClock) -> None:
    with db.transaction() as session:
        campaign = factories.make_campaign(session)
        for days, cost in ((1, "10"), (8, "200"), (400, "3000")):
            began = frozen.at - timedelta(days=days)
            factories.make_activity(session, campaign, cost=Decimal(cost), launched_at=began)
        factories.make_activity(session, campaign, cost=Decimal("5"), starts_on=frozen.at.date())
        first, last = (frozen.at.date() - timedelta(days=days) for days in (8, 6))
        factories.make_activity(session, campaign, cost=Decimal("100"), starts_on=first, ends_on=last)
        factories.make_activity(session, campaign, cost=Decimal("7000"))  # has no day
    with db.read_only_session() as session:
        found = overview.overview(session, SYSTEM, parse_period("7", NOON.date()), UTC)
    assert (found.now.cost, found.before.cost) == (Decimal("48.33"), Decimal("266.67"))


def test_page_shows_periods_and_not_measured(viewer_client: FlaskClient, frozen: FrozenClock) -> None:
    get_text(viewer_client, "/overview")
    seed_campaigns()
    for query in (
        "",
        "?period=7",
        "?period=90",
        "?first=2026-01-01&last=2027-02-01",
        "?period=junk",
        "?first=9&last=x",
    ):
        page = get_text(viewer_client, f"/overview{query}")
        assert page.count("not measured") >= 4
    page = get_text(viewer_client, "/overview?first=2020-01-01&last=2027-02-01")
    assert "Campaign 1" in page
    assert "before:" in page


def test_overview_requires_permission(database: Engine, client: FlaskClient) -> None:
    assert client.get("/overview").status_code == 303
    with db.read_only_session() as session, pytest.raises(Forbidden):
        overview.overview(session, PUBLIC, WIDE, UTC)


def test_overview_query_count_is_constant(
    viewer_client: FlaskClient, database: Engine, count_queries: CountQueries
) -> None:
    query_counts = []
    for number in (1, 3):
        with db.transaction() as session:
            company = Company(session, contacts=20, seed=number) if number == 1 else None
            if company is not None:
                company.campaign("Campaign", at(1))
            else:
                for n in range(number):
                    factories.make_activity(session, factories.make_campaign(session, name=f"More {n}"))
        get_text(viewer_client, "/overview?period=90")
        with count_queries(database) as queries:
            get_text(viewer_client, "/overview?period=90")
        query_counts.append(len([query for query in queries if query != "BEGIN"]))
    assert query_counts[0] == query_counts[1] <= 30, query_counts
