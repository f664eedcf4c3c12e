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
from tests.tracking.page_script_site import HOST, Tab, collect_visits
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
            extra_fields={"z": "Asia/Tbilisi"},
        ).report().report("h", active=20 * (number % 2))
    collect_visits()
    return coordinator_client


def test_visits_section_and_page(
    visited: FlaskClient, database: Engine, count_queries: Callable[[Engine], AbstractContextManager[list[str]]]
) -> None:
    with count_queries(database) as queries:
        section = visited.get("/campaigns/1/visits", headers={"HX-Request": "true"}).get_data(as_text=True)
    assert len(queries) <= 9
    assert "<html" not in section
    for expected_text in (f"{HOST}/tea1", "facebook", "Georgia", "Computer", "Organic social", "50", "A post"):
        assert expected_text in section, expected_text
        lazy_page, full_page = (
            visited.get("/campaigns/1/performance").text,
            visited.get("/campaigns/1/performance?all=1").text,
        )
        assert 'hx-trigger="near"' in lazy_page
        assert 'hx-trigger="near"' not in full_page
        assert "Visits to your website" not in lazy_page
        assert "Visits to your website" in full_page
    page = visited.get("/campaigns/1/visits").get_data(as_text=True)
    assert page.count("Nobody known") == 25
    assert 'rel="next"' in page


def test_viewers_see_counts_and_no_single_visit(visited: FlaskClient, viewer_client: FlaskClient) -> None:
    page = viewer_client.get("/campaigns/1/visits").get_data(as_text=True)
    assert "Landing pages" in page
    assert "Nobody known" not in page


def test_empty_state_before_first_visit(coordinator_client: FlaskClient) -> None:
    with db.transaction() as session:
        make_campaign(session)
    assert "No visit yet" in coordinator_client.get("/campaigns/1/visits").get_data(as_text=True)
    assert coordinator_client.get("/campaigns/2/visits").status_code == 404


def test_page_script_setup_page(visited: FlaskClient) -> None:
    page = visited.get("/site").get_data(as_text=True)
    assert "&lt;script async src=&#34;http://localhost/k.js&#34;" in page
    assert "We see it" in page
    assert "Not heard of yet" in page, "localhost itself"
    assert "We see it" in visited.get("/site/seen").get_data(as_text=True)
