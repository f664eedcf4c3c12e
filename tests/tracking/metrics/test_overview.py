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
from tests.tracking.conversions.test_goals import make_goal, notice, report
from tests.tracking.report_fixture import Company, at
from tests.tracking.views.test_reports import CountQueries, text
from tracking.counters.periods import Period, period_of
from tracking.metrics import overview
from tracking.metrics.performance import performance

WIDE = Period(date(2020, 1, 1), date(2027, 12, 31))
UTC = ZoneInfo("UTC")


def seeded(number: int = 2) -> list[int]:
    with db.transaction() as session:
        company = Company(session, contacts=30)
        return [company.campaign(f"Campaign {n}", at(n)).id for n in range(number)]


def test_a_wide_period_says_what_the_campaigns_say(database: Engine, frozen: FrozenClock) -> None:
    ids = seeded()
    with db.reading() as session:
        found = overview.overview(session, SYSTEM, WIDE, UTC)
        pages = [performance(session, SYSTEM, id).counts for id in ids]
    assert found.now.leads == sum(page.leads for page in pages) == sum(found.trend.leads)
    assert found.now.conversions == sum(page.conversions for page in pages) == sum(found.trend.conversions)
    assert found.now.cost == sum((page.cost or Decimal(0) for page in pages), Decimal(0))
    assert sum(line.now.leads for line in found.channels) == found.now.leads
    assert sum(line.now.leads for line in found.campaigns) == found.now.leads
    assert sum(line.now.conversions for line in found.goals) == found.now.conversions
    assert found.before.leads == 0
    assert found.brand.direct is None


@pytest.mark.parametrize("zone", ["Asia/Tehran", "Europe/Paris", "Asia/Tbilisi"])
def test_two_halves_are_the_whole(database: Engine, frozen: FrozenClock, zone: str) -> None:
    seeded()
    with db.reading() as session:
        whole = overview.overview(session, SYSTEM, WIDE, ZoneInfo(zone)).now
        day = at(30).date()
        parts = [
            overview.overview(session, SYSTEM, Period(first, last), ZoneInfo(zone)).now
            for first, last in ((date(2020, 1, 1), day), (day + timedelta(days=1), date(2027, 12, 31)))
        ]
    assert sum(part.leads for part in parts) == whole.leads
    assert sum(part.conversions for part in parts) == whole.conversions


def test_a_conversion_of_no_campaign_counts_for_the_company(database: Engine, frozen: FrozenClock) -> None:
    with db.transaction() as session:
        make_goal(session)
        report(session, value="40")
    notice()
    with db.reading() as session:
        found = overview.overview(session, SYSTEM, period_of("7", NOON.date()), UTC)
    assert (found.now.conversions, found.now.revenue) == (1, Decimal(40))
    assert [(line.title, line.now.conversions) for line in found.goals] == [("Purchase", 1)]
    assert found.campaigns == []


def test_costs_fall_on_the_days_of_their_activity(database: Engine, frozen: FrozenClock) -> None:
    with db.transaction() as session:
        campaign = factories.make_campaign(session)
        for days, cost in ((1, "10"), (8, "200"), (400, "3000")):
            began = frozen.at - timedelta(days=days)
            factories.make_activity(session, campaign, cost=Decimal(cost), launched_at=began)
        factories.make_activity(session, campaign, cost=Decimal("5"), starts_on=frozen.at.date())
        first, last = (frozen.at.date() - timedelta(days=days) for days in (8, 6))
        factories.make_activity(session, campaign, cost=Decimal("100"), starts_on=first, ends_on=last)
        factories.make_activity(session, campaign, cost=Decimal("7000"))  # has no day
    with db.reading() as session:
        found = overview.overview(session, SYSTEM, period_of("7", NOON.date()), UTC)
    assert (found.now.cost, found.before.cost) == (Decimal("48.33"), Decimal("266.67"))


def test_the_page_shows_periods_and_says_what_is_not_measured(viewer_client: FlaskClient, frozen: FrozenClock) -> None:
    text(viewer_client, "/overview")
    seeded()
    for query in (
        "",
        "?period=7",
        "?period=90",
        "?first=2026-01-01&last=2027-02-01",
        "?period=junk",
        "?first=9&last=x",
    ):
        page = text(viewer_client, f"/overview{query}")
        assert page.count("not measured") >= 4
    page = text(viewer_client, "/overview?first=2020-01-01&last=2027-02-01")
    assert "Campaign 1" in page
    assert "before:" in page


def test_strangers_see_nothing(database: Engine, client: FlaskClient) -> None:
    assert client.get("/overview").status_code == 303
    with db.reading() as session, pytest.raises(Forbidden):
        overview.overview(session, PUBLIC, WIDE, UTC)


def test_it_asks_as_much_of_many_campaigns_as_of_one(
    viewer_client: FlaskClient, database: Engine, count_queries: CountQueries
) -> None:
    asked = []
    for number in (1, 3):
        with db.transaction() as session:
            company = Company(session, contacts=20, seed=number) if number == 1 else None
            if company is not None:
                company.campaign("Campaign", at(1))
            else:
                for n in range(number):
                    factories.make_activity(session, factories.make_campaign(session, name=f"More {n}"))
        text(viewer_client, "/overview?period=90")
        with count_queries(database) as queries:
            text(viewer_client, "/overview?period=90")
        asked.append(len([query for query in queries if query != "BEGIN"]))
    assert asked[0] == asked[1] <= 30, asked
