"""Tests of the report pages: content, permissions, number of queries, polling."""

import csv
import io
import re
from collections.abc import Callable
from contextlib import AbstractContextManager
from decimal import Decimal
from typing import Any

import pytest
from flask.testing import FlaskClient
from sqlalchemy import Engine, select

from campaigns import db
from campaigns.accounts.actor import SYSTEM
from campaigns.content.models import MessageVersion
from campaigns.planning.models import Activity, Campaign, CampaignStatus, Channel, EmailDetails
from tests import factories
from tests.conftest import NOON, FrozenClock
from tests.tracking.report_fixture import Company, at
from tracking.metrics.counts import MailCounts
from tracking.metrics.performance import performance
from tracking.metrics.registry import METRICS
from tracking.views.reports.sparklines import spark_points

CountQueries = Callable[[Engine], AbstractContextManager[list[str]]]


def seeded(name: str = "Harvest", **values: Any) -> int:
    with db.transaction() as session:
        return Company(session, contacts=30).campaign(name, at(3), **values).id


def planned(**values: object) -> int:
    with db.transaction() as session:
        return factories.make_campaign(session, **values).id


def text(client: FlaskClient, url: str, status: int = 200) -> str:
    answer = client.get(url)
    assert answer.status_code == status, answer.text[:2000]
    return answer.text


def test_an_empty_house_teaches(coordinator_client: FlaskClient, viewer_client: FlaskClient) -> None:
    page = text(coordinator_client, "/campaigns")
    assert "Your first campaign starts here" in page
    assert "/campaigns/new" in page
    assert "/campaigns/new" not in text(viewer_client, "/campaigns")


def test_the_index_shows_what_each_campaign_brought(viewer_client: FlaskClient) -> None:
    campaign_id = seeded()
    planned(name="Built in", built_in=True)
    page = text(viewer_client, "/campaigns")
    assert f"/campaigns/{campaign_id}/performance" in page
    assert "Built in" not in page
    with db.reading() as session:
        counts = performance(session, SYSTEM, campaign_id).counts
    mails = counts.mails or MailCounts()
    assert f"{counts.leads} ÷ {mails.clickers}" in page
    assert f"{mails.openers} ÷ {mails.trackable}" in page


def test_the_index_is_searched_and_filtered(viewer_client: FlaskClient) -> None:
    planned(name="Autumn 100%", status=CampaignStatus.ACTIVE)
    planned(name="Winter", status=CampaignStatus.PLANNED)
    for query, shown, hidden in (
        ("?q=autumn", "Autumn", "Winter"),
        ("?status=planned", "Winter", "Autumn"),
        ("?q=0%25", "Autumn", "Winter"),
    ):
        page = text(viewer_client, f"/campaigns{query}")
        assert shown in page
        assert hidden not in page
    assert "No campaign fits" in text(viewer_client, "/campaigns?q=%25%25")
    assert "Autumn" in text(viewer_client, "/campaigns?status=nonsense&after=%00garbage")


def test_the_index_is_paged(viewer_client: FlaskClient) -> None:
    for n in range(30):
        planned(name=f"Number {n:02}")
    first = text(viewer_client, "/campaigns")
    assert first.count('class="campaign"') == 25
    after = first.split('rel="next" href="')[1].split('"')[0].replace("&amp;", "&")
    assert text(viewer_client, after).count('class="campaign"') == 5


def test_the_index_asks_few_questions(
    viewer_client: FlaskClient, database: Engine, count_queries: CountQueries
) -> None:
    with db.transaction() as session:
        company = Company(session, contacts=20)
        for n in range(6):
            company.campaign(f"Campaign {n}", at(n))
    text(viewer_client, "/campaigns")
    with count_queries(database) as queries:
        text(viewer_client, "/campaigns")
    doors = ("BEGIN", "FROM users", "FROM organisations")
    questions = [query for query in queries if not any(door in query for door in doors)]
    assert len(questions) <= 11, questions


def test_the_performance_page_asks_few_questions(
    viewer_client: FlaskClient, database: Engine, count_queries: CountQueries
) -> None:
    campaign_id = seeded()
    text(viewer_client, f"/campaigns/{campaign_id}/performance")
    with count_queries(database) as queries:
        text(viewer_client, f"/campaigns/{campaign_id}/performance")
    assert len([query for query in queries if query != "BEGIN"]) <= 30, queries


def test_every_rate_stands_with_its_denominator(viewer_client: FlaskClient) -> None:
    campaign_id = seeded()
    page = text(viewer_client, f"/campaigns/{campaign_id}/performance")
    with db.reading() as session:
        mails = performance(session, SYSTEM, campaign_id).counts.mails or MailCounts()
    assert f"{mails.openers} openers ÷ {mails.trackable} trackable recipients" in page
    assert f"{mails.clickers} clickers ÷ {mails.openers} openers" in page
    for words in ("Leads", "Conversions", "Lead-conversion rate", "Cost per lead", "Search ads", "Book a tasting"):
        assert words in page
    for metric in METRICS.values():
        assert metric.label in page
    assert "style=" not in page.replace("<style", "")
    assert "<script>" not in page


@pytest.mark.parametrize("path", ["performance", "performance/figures", "summary", "performance.csv"])
def test_a_campaign_that_is_not_there(viewer_client: FlaskClient, path: str) -> None:
    assert viewer_client.get(f"/campaigns/999/{path}").status_code == 404
    assert viewer_client.get(f"/campaigns/{planned(built_in=True)}/{path}").status_code == 404


@pytest.mark.parametrize("path", ["/campaigns", "/campaigns/1/performance", "/campaigns/1/performance.csv"])
def test_strangers_sign_in_first(client: FlaskClient, path: str) -> None:
    answer = client.get(path)
    assert answer.status_code == 303
    assert "/sign-in" in answer.location


def test_early_states_say_what_will_appear(viewer_client: FlaskClient) -> None:
    empty = planned()
    assert "no activities yet" in text(viewer_client, f"/campaigns/{empty}/performance")
    with db.transaction() as session:
        mail = factories.make_activity(session)
        waiting = mail.campaign_id
    page = text(viewer_client, f"/campaigns/{waiting}/performance")
    assert "Nothing has happened yet" in page
    assert "not measured" in page
    assert "0.0%" not in page
    assert text(viewer_client, f"/campaigns/{waiting}/summary")


def test_the_fragment_moves_only_when_something_changed(viewer_client: FlaskClient, frozen: FrozenClock) -> None:
    campaign_id = seeded()
    url = f"/campaigns/{campaign_id}/performance/figures"
    first = text(viewer_client, url)
    seen = first.split("seen=")[1].split('"')[0]
    assert seen != "?"
    assert viewer_client.get(f"{url}?seen={seen}").status_code == 204
    with db.transaction() as session:
        activity = session.scalars(select(Activity).where(Activity.channel == Channel.SOCIAL)).one()
        activity.cost = Decimal("99.00")
    assert viewer_client.get(f"{url}?seen={seen}").status_code == 200


def test_the_page_looks_often_only_while_something_happens(viewer_client: FlaskClient, frozen: FrozenClock) -> None:
    campaign_id = seeded()
    url = f"/campaigns/{campaign_id}/performance/figures"
    assert "every 30s" in text(viewer_client, url)
    frozen.at = at(4)
    assert "every 2s" in text(viewer_client, url)
    frozen.at = NOON
    with db.transaction() as session:
        session.get_one(Campaign, campaign_id).status = CampaignStatus.FINISHED
    assert "hx-trigger" not in text(viewer_client, url)


def test_the_csv_says_what_the_page_says(viewer_client: FlaskClient) -> None:
    campaign_id = seeded("=Harvest+1")
    answer = viewer_client.get(f"/campaigns/{campaign_id}/performance.csv")
    assert answer.content_type == "text/csv; charset=utf-8"
    assert "attachment" in answer.headers["Content-Disposition"]
    rows = list(csv.DictReader(io.StringIO(answer.text.removeprefix("\ufeff"))))
    with db.reading() as session:
        found = performance(session, SYSTEM, campaign_id)
    assert [row["row"] for row in rows] == ["campaign"] + ["channel"] * 4 + ["activity"] * 5 + ["link"] * 8
    assert rows[0]["activity"] == "'=Harvest+1"
    for row, counts in zip(rows, [found.counts, *(line.counts for line in found.channels)], strict=False):
        for key, metric in METRICS.items():
            value = metric.value(counts)
            assert row[key] == "" if value is None else float(row[key]) == pytest.approx(float(value), abs=0.01)
    social = next(row for row in rows if row["row"] == "channel" and row["channel"] == "social")
    assert (social["opens"], social["leads"]) == ("", "0")


@pytest.mark.parametrize(
    ("values", "points"),
    [
        ([], ""),
        ([0, 0], "0.0,30.0 120.0,30.0"),
        ([1, 2, 0], "0.0,16.0 60.0,2.0 120.0,30.0"),
        ([5], "0.0,2.0"),
    ],
)
def test_a_spark_line(values: list[int], points: str) -> None:
    assert spark_points(values) == points


def test_the_health_page_says_what_is_wrong(owner_client: FlaskClient, coordinator_client: FlaskClient) -> None:
    page = text(owner_client, "/health/house")
    assert "Something needs a look." in page  # The test runs neither a collector nor a broker.
    assert "until a collector runs" in page
    assert "does not answer" in page
    fragment = owner_client.get("/health/house", headers={"HX-Request": "true"}).text
    assert "<html" not in fragment
    text(coordinator_client, "/health/house", 403)


def test_health_tells_machines_of_the_collector(client: FlaskClient) -> None:
    answer = client.get("/health")
    assert answer.status_code == 200  # A late collector must not make a load balancer drop the process.
    facts = answer.get_json()["checks"]["tracking"]
    assert facts["ok"] is True
    assert facts["well"] is False
    assert facts["collecting"] is False
    assert facts["lost_hits"] == 0


@pytest.mark.parametrize("who", ["human", "machine", "settling"])
def test_the_heat_is_painted_over_the_mail_itself(viewer_client: FlaskClient, who: str) -> None:
    campaign_id = seeded()
    with db.transaction() as session:
        chosen = Activity.campaign_id == campaign_id, EmailDetails.version_id.is_not(None)
        activity = session.scalars(select(Activity).join(EmailDetails).where(*chosen).order_by(Activity.id)).first()
        assert activity
        version = session.get_one(MessageVersion, activity.email.version_id)
        version.html = (
            "<html><body><a href='{{ links[1] }}'>Come in</a><a href='https://a.example'>Away</a></body></html>"
        )
        address = f"/activities/{activity.id}/heat"
    assert f"{address}/mail" in text(viewer_client, address + f"?who={who}")
    answer = viewer_client.get(f"{address}/mail?who={who}")
    assert answer.status_code == 200
    assert re.search(r"outline:3px solid #\w{6}.*>Come in<span[^>]*>1: [\d.]+%</span>", answer.text)
    assert "href" not in answer.text  # The mail shown contains no links, so that none counts as a click.
    assert "sandbox" in answer.headers["Content-Security-Policy"]
