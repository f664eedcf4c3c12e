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
from tracking.metrics.performance import campaign_performance
from tracking.metrics.registry import METRICS
from tracking.views.reports.sparklines import spark_points

CountQueries = Callable[[Engine], AbstractContextManager[list[str]]]


def make_campaign_with_data(name: str = "Harvest", **values: Any) -> int:
    with db.transaction() as session:
        return Company(session, contacts=30).campaign(name, at(3), **values).id


def make_empty_campaign(**values: object) -> int:
    with db.transaction() as session:
        return factories.make_campaign(session, **values).id


def get_text(client: FlaskClient, url: str, status: int = 200) -> str:
    answer = client.get(url)
    assert answer.status_code == status, answer.text[:2000]
    return answer.text


def test_empty_campaign_list_explains_first_step(coordinator_client: FlaskClient, viewer_client: FlaskClient) -> None:
    page = get_text(coordinator_client, "/campaigns")
    assert "Your first campaign starts here" in page
    assert "/campaigns/new" in page
    assert "/campaigns/new" not in get_text(viewer_client, "/campaigns")


def test_campaign_list_shows_metrics(viewer_client: FlaskClient) -> None:
    campaign_id = make_campaign_with_data()
    make_empty_campaign(name="Built in", built_in=True)
    page = get_text(viewer_client, "/campaigns")
    assert f"/campaigns/{campaign_id}/performance" in page
    assert "Built in" not in page
    with db.read_only_session() as session:
        counts = campaign_performance(session, SYSTEM, campaign_id).counts
    mails = counts.mails or MailCounts()
    assert f"{counts.leads} ÷ {mails.clickers}" in page
    assert f"{mails.openers} ÷ {mails.trackable}" in page


def test_campaign_list_search_and_filters(viewer_client: FlaskClient) -> None:
    make_empty_campaign(name="Autumn 100%", status=CampaignStatus.ACTIVE)
    make_empty_campaign(name="Winter", status=CampaignStatus.PLANNED)
    for query, shown, hidden in (
        ("?q=autumn", "Autumn", "Winter"),
        ("?status=planned", "Winter", "Autumn"),
        ("?q=0%25", "Autumn", "Winter"),
    ):
        page = get_text(viewer_client, f"/campaigns{query}")
        assert shown in page
        assert hidden not in page
    assert "No campaign fits" in get_text(viewer_client, "/campaigns?q=%25%25")
    assert "Autumn" in get_text(viewer_client, "/campaigns?status=nonsense&after=%00garbage")


def test_campaign_list_is_paginated(viewer_client: FlaskClient) -> None:
    for n in range(30):
        make_empty_campaign(name=f"Number {n:02}")
    first = get_text(viewer_client, "/campaigns")
    assert first.count('class="campaign"') == 25
    after = first.split('rel="next" href="')[1].split('"')[0].replace("&amp;", "&")
    assert get_text(viewer_client, after).count('class="campaign"') == 5


def test_campaign_list_query_count(viewer_client: FlaskClient, database: Engine, count_queries: CountQueries) -> None:
    with db.transaction() as session:
        company = Company(session, contacts=20)
        for n in range(6):
            company.campaign(f"Campaign {n}", at(n))
    get_text(viewer_client, "/campaigns")
    with count_queries(database) as queries:
        get_text(viewer_client, "/campaigns")
    session_queries = ("BEGIN", "FROM users", "FROM organisations")
    page_queries = [query for query in queries if not any(text in query for text in session_queries)]
    assert len(page_queries) <= 11, page_queries


def test_performance_page_query_count(
    viewer_client: FlaskClient, database: Engine, count_queries: CountQueries
) -> None:
    campaign_id = make_campaign_with_data()
    get_text(viewer_client, f"/campaigns/{campaign_id}/performance")
    with count_queries(database) as queries:
        get_text(viewer_client, f"/campaigns/{campaign_id}/performance")
    assert len([query for query in queries if query != "BEGIN"]) <= 30, queries


def test_rates_show_their_denominator(viewer_client: FlaskClient) -> None:
    campaign_id = make_campaign_with_data()
    page = get_text(viewer_client, f"/campaigns/{campaign_id}/performance")
    with db.read_only_session() as session:
        mails = campaign_performance(session, SYSTEM, campaign_id).counts.mails or MailCounts()
    assert f"{mails.openers} openers ÷ {mails.trackable} trackable recipients" in page
    assert f"{mails.clickers} clickers ÷ {mails.openers} openers" in page
    for words in ("Leads", "Conversions", "Lead-conversion rate", "Cost per lead", "Search ads", "Book a tasting"):
        assert words in page
    for metric in METRICS.values():
        assert metric.label in page
    assert "style=" not in page.replace("<style", "")
    assert "<script>" not in page


@pytest.mark.parametrize("path", ["performance", "performance/figures", "summary", "performance.csv"])
def test_unknown_campaign_is_not_found(viewer_client: FlaskClient, path: str) -> None:
    assert viewer_client.get(f"/campaigns/999/{path}").status_code == 404
    assert viewer_client.get(f"/campaigns/{make_empty_campaign(built_in=True)}/{path}").status_code == 404


@pytest.mark.parametrize("path", ["/campaigns", "/campaigns/1/performance", "/campaigns/1/performance.csv"])
def test_anonymous_user_is_redirected_to_sign_in(client: FlaskClient, path: str) -> None:
    answer = client.get(path)
    assert answer.status_code == 303
    assert "/sign-in" in answer.location


def test_empty_states(viewer_client: FlaskClient) -> None:
    empty = make_empty_campaign()
    assert "no activities yet" in get_text(viewer_client, f"/campaigns/{empty}/performance")
    with db.transaction() as session:
        mail = factories.make_activity(session)
        waiting = mail.campaign_id
    page = get_text(viewer_client, f"/campaigns/{waiting}/performance")
    assert "Nothing has happened yet" in page
    assert "not measured" in page
    assert "0.0%" not in page
    assert get_text(viewer_client, f"/campaigns/{waiting}/summary")


def test_unchanged_fragment_is_no_content(viewer_client: FlaskClient, frozen: FrozenClock) -> None:
    campaign_id = make_campaign_with_data()
    url = f"/campaigns/{campaign_id}/performance/figures"
    first = get_text(viewer_client, url)
    seen = first.split("seen=")[1].split('"')[0]
    assert seen != "?"
    assert viewer_client.get(f"{url}?seen={seen}").status_code == 204
    with db.transaction() as session:
        activity = session.scalars(select(Activity).where(Activity.channel == Channel.SOCIAL)).one()
        activity.cost = Decimal("99.00")
    assert viewer_client.get(f"{url}?seen={seen}").status_code == 200


def test_polling_interval_follows_campaign_activity(viewer_client: FlaskClient, frozen: FrozenClock) -> None:
    campaign_id = make_campaign_with_data()
    url = f"/campaigns/{campaign_id}/performance/figures"
    assert "every 30s" in get_text(viewer_client, url)
    frozen.at = at(4)
    assert "every 2s" in get_text(viewer_client, url)
    frozen.at = NOON
    with db.transaction() as session:
        session.get_one(Campaign, campaign_id).status = CampaignStatus.FINISHED
    assert "hx-trigger" not in get_text(viewer_client, url)


def test_csv_export_equals_page(viewer_client: FlaskClient) -> None:
    campaign_id = make_campaign_with_data("=Harvest+1")
    answer = viewer_client.get(f"/campaigns/{campaign_id}/performance.csv")
    assert answer.content_type == "text/csv; charset=utf-8"
    assert "attachment" in answer.headers["Content-Disposition"]
    rows = list(csv.DictReader(io.StringIO(answer.text.removeprefix("\ufeff"))))
    with db.read_only_session() as session:
        found = campaign_performance(session, SYSTEM, campaign_id)
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
def test_spark_points(values: list[int], points: str) -> None:
    assert spark_points(values) == points


def test_health_page_lists_problems(owner_client: FlaskClient, coordinator_client: FlaskClient) -> None:
    page = get_text(owner_client, "/health/installation")
    assert "Something needs a look." in page  # The test runs neither a collector nor a broker.
    assert "until a collector runs" in page
    assert "does not answer" in page
    fragment = owner_client.get("/health/installation", headers={"HX-Request": "true"}).text
    assert "<html" not in fragment
    get_text(coordinator_client, "/health/installation", 403)


def test_health_endpoint_reports_collector(client: FlaskClient) -> None:
    answer = client.get("/health")
    assert answer.status_code == 200  # A late collector must not make a load balancer drop the process.
    facts = answer.get_json()["checks"]["tracking"]
    assert facts["ok"] is True
    assert facts["well"] is False
    assert facts["collecting"] is False
    assert facts["lost_hits"] == 0


@pytest.mark.parametrize("who", ["human", "machine", "settling"])
def test_click_map_is_drawn_over_the_mail(viewer_client: FlaskClient, who: str) -> None:
    campaign_id = make_campaign_with_data()
    with db.transaction() as session:
        chosen = Activity.campaign_id == campaign_id, EmailDetails.version_id.is_not(None)
        activity = session.scalars(select(Activity).join(EmailDetails).where(*chosen).order_by(Activity.id)).first()
        assert activity
        version = session.get_one(MessageVersion, activity.email.version_id)
        version.html = (
            "<html><body><a href='{{ links[1] }}'>Come in</a><a href='https://a.example'>Away</a></body></html>"
        )
        address = f"/activities/{activity.id}/heat"
    assert f"{address}/mail" in get_text(viewer_client, address + f"?who={who}")
    answer = viewer_client.get(f"{address}/mail?who={who}")
    assert answer.status_code == 200
    assert re.search(r"outline:3px solid #\w{6}.*>Come in<span[^>]*>1: [\d.]+%</span>", answer.text)
    assert "href" not in answer.text  # The mail shown contains no links, so that none counts as a click.
    assert "sandbox" in answer.headers["Content-Security-Policy"]
