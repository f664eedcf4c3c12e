"""Tests of the visits pages and of the page script's setup page."""

from collections.abc import Callable
from contextlib import AbstractContextManager

import pytest
from flask.testing import FlaskClient
from sqlalchemy import Engine

from campaigns import db
from campaigns.accounts.models import Organisation
from campaigns.planning.models import Channel
from tests.conftest import FrozenClock
from tests.factories import make_activity, make_campaign
from tests.tracking.page_script_site import HOST, Tab, visits
from tracking.endpoints import link_targets


@pytest.fixture
def visited(coordinator_client: FlaskClient, frozen: FrozenClock) -> FlaskClient:
    with db.transaction() as session:
        session.get_one(Organisation, 1).own_hosts = [HOST]
        make_activity(session, make_campaign(session, name="Tea"), channel=Channel.SOCIAL, title="A post")
    link_targets.sync()
    for number in range(30):
        Tab(
            f"/tea{number % 2}?utm_source=facebook&utm_medium=social&utm_campaign=tea",
            referrer="https://l.facebook.com/",
            ip=f"198.51.{number}.1",
            more={"z": "Asia/Tbilisi"},
        ).tell().tell("h", active=20 * (number % 2))
    visits()
    return coordinator_client


def test_a_campaigns_visits(
    visited: FlaskClient, database: Engine, count_queries: Callable[[Engine], AbstractContextManager[list[str]]]
) -> None:
    with count_queries(database) as queries:
        section = visited.get("/campaigns/1/visits", headers={"HX-Request": "true"}).get_data(as_text=True)
    assert len(queries) <= 9
    assert "<html" not in section
    for said in (f"{HOST}/tea1", "facebook", "Georgia", "Computer", "Organic social", "50", "A post"):
        assert said in section, said
        late, whole = visited.get("/campaigns/1/performance").text, visited.get("/campaigns/1/performance?all=1").text
        assert 'hx-trigger="near"' in late
        assert 'hx-trigger="near"' not in whole
        assert "Visits to your website" not in late
        assert "Visits to your website" in whole
    page = visited.get("/campaigns/1/visits").get_data(as_text=True)
    assert page.count("Nobody known") == 25
    assert 'rel="next"' in page


def test_viewers_see_counts_and_no_single_visit(visited: FlaskClient, viewer_client: FlaskClient) -> None:
    page = viewer_client.get("/campaigns/1/visits").get_data(as_text=True)
    assert "Landing pages" in page
    assert "Nobody known" not in page


def test_before_the_first_visit_it_says_what_will_appear(coordinator_client: FlaskClient) -> None:
    with db.transaction() as session:
        make_campaign(session)
    assert "No visit yet" in coordinator_client.get("/campaigns/1/visits").get_data(as_text=True)
    assert coordinator_client.get("/campaigns/2/visits").status_code == 404


def test_the_page_of_the_script(visited: FlaskClient) -> None:
    page = visited.get("/site").get_data(as_text=True)
    assert "&lt;script async src=&#34;http://localhost/k.js&#34;" in page
    assert "We see it" in page
    assert "Not heard of yet" in page, "localhost itself"
    assert "We see it" in visited.get("/site/seen").get_data(as_text=True)
