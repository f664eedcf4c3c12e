"""Tests of shared reports: content, expiry and revocation, rate limit, permissions, and no personal data."""

import re
from datetime import timedelta
from zoneinfo import ZoneInfo

import pytest
from flask.testing import FlaskClient
from sqlalchemy import Engine, select

from campaigns import db
from campaigns.accounts.actor import SYSTEM
from campaigns.accounts.models import AuditLogEntry
from campaigns.audience.models import Contact
from campaigns.leads.models import Lead
from campaigns.tokens import Purpose, keyring
from campaigns.web.security.rate_limits import RateLimit
from tests.conftest import FrozenClock
from tests.tracking.views.test_reports import make_campaign_with_data
from tracking import public
from tracking.bots import rules
from tracking.metrics.performance import campaign_performance
from tracking.metrics.registry import METRICS
from tracking.models.events import SharedReport
from tracking.reports import shared_reports


@pytest.fixture(autouse=True)
def reset_rate_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(public, "_view_limit", RateLimit(public.VIEWS_PER_MINUTE, 60))


def create_link(client: FlaskClient, campaign_id: int, days: str = "30") -> str:
    assert client.post(f"/campaigns/{campaign_id}/shares", data={"days": days}).status_code == 303
    page = client.get(f"/campaigns/{campaign_id}/shares").text
    return str(re.findall(r'value="http://localhost(/s/[^"]+)"', page)[0])


def newest_report() -> SharedReport:
    with db.read_only_session() as session:
        return session.scalars(select(SharedReport).order_by(SharedReport.id.desc())).first()  # type: ignore[return-value]


def test_link_shows_snapshot_values(coordinator_client: FlaskClient, client: FlaskClient, frozen: FrozenClock) -> None:
    campaign_id = make_campaign_with_data()
    with db.read_only_session() as session:
        leads = campaign_performance(session, SYSTEM, campaign_id).counts.leads
    url = create_link(coordinator_client, campaign_id)
    with db.transaction() as session:
        session.query(Lead).delete()
    answer = client.get(url)
    assert answer.status_code == 200
    assert re.search(rf'Leads</dt><dd class="tile-value numeric">{leads}</dd>', answer.text)
    assert "Harvest" in answer.text
    assert "Search ads" in answer.text
    assert "Openers ÷ trackable recipients." in answer.text
    assert f"rules of version {rules.RULES_VERSION}" in answer.text
    assert answer.headers["X-Robots-Tag"] == "noindex, nofollow"
    assert answer.headers["Referrer-Policy"] == "no-referrer"
    assert "no-store" in answer.headers["Cache-Control"]
    assert "Set-Cookie" not in answer.headers


def test_page_has_no_personal_data_and_no_links(coordinator_client: FlaskClient, client: FlaskClient) -> None:
    page = client.get(create_link(coordinator_client, make_campaign_with_data())).text
    with db.read_only_session() as session:
        for contact in session.scalars(select(Contact)):
            assert contact.email not in page
    assert "<a " not in page
    assert "<script" not in page
    assert "<form" not in page


@pytest.mark.parametrize("language", ["fa", "fr", "ka"])
def test_page_uses_browser_language(coordinator_client: FlaskClient, client: FlaskClient, language: str) -> None:
    page = client.get(
        create_link(coordinator_client, make_campaign_with_data()), headers={"Accept-Language": language}
    ).text
    assert page.splitlines()[1].startswith("<html lang=")
    if language == "fa":
        assert 'dir="rtl"' in page


def test_every_invalid_link_answers_the_same(
    coordinator_client: FlaskClient, client: FlaskClient, frozen: FrozenClock
) -> None:
    campaign_id = make_campaign_with_data()
    revoked, ended = create_link(coordinator_client, campaign_id), create_link(coordinator_client, campaign_id, "7")
    with db.read_only_session() as session:
        numbers = list(session.scalars(select(SharedReport.id).order_by(SharedReport.id)))
    revoked = f"/s/{keyring().mint(Purpose.SHARE, numbers[0].to_bytes(8))}"
    assert client.get(revoked).status_code == 200
    coordinator_client.post(f"/shares/{numbers[0]}/withdraw")
    frozen.at += timedelta(days=7)
    unknown = keyring().mint(Purpose.SHARE, (999).to_bytes(8))
    foreign = keyring().mint(Purpose.ENGAGEMENT, numbers[1].to_bytes(8))
    short = keyring().mint(Purpose.SHARE, b"1")
    huge = keyring().mint(Purpose.SHARE, b"\xff" * 8)
    answers = [
        client.get(url)
        for url in (
            revoked,
            ended,
            f"/s/{unknown}",
            f"/s/{foreign}",
            f"/s/{short}",
            f"/s/{huge}",
            "/s/guess",
            "/s/a%00b",
        )
    ]
    assert {answer.status_code for answer in answers} == {404}
    unsigned = {re.sub(r'<meta name="csrf-token"[^>]*>', "", answer.text) for answer in answers[:-1]}
    assert len(unsigned) == 1


def test_views_are_rate_limited(client: FlaskClient, frozen: FrozenClock) -> None:
    answers = [client.get("/s/guess").status_code for _ in range(public.VIEWS_PER_MINUTE + 1)]
    assert answers == [404] * public.VIEWS_PER_MINUTE + [429]
    frozen.at += timedelta(seconds=1)
    assert client.get("/s/guess").status_code == 404


def test_views_are_counted_and_links_audited(coordinator_client: FlaskClient, client: FlaskClient) -> None:
    campaign_id = make_campaign_with_data()
    url = create_link(coordinator_client, campaign_id)
    client.get(url)
    client.head(url)
    client.get(url)
    assert newest_report().views == 2
    for _ in range(2):
        coordinator_client.post(f"/shares/{newest_report().id}/withdraw")
    with db.read_only_session() as session:
        assert list(session.scalars(select(AuditLogEntry.action).order_by(AuditLogEntry.id))) == ["share", "unshare"]
    assert "Taken back" in coordinator_client.get(f"/campaigns/{campaign_id}/shares").text


def test_sharing_requires_permission(
    viewer_client: FlaskClient, coordinator_client: FlaskClient, database: Engine
) -> None:
    campaign_id = make_campaign_with_data()
    create_link(coordinator_client, campaign_id)
    assert viewer_client.get(f"/campaigns/{campaign_id}/shares").status_code == 403
    assert viewer_client.post(f"/campaigns/{campaign_id}/shares", data={"days": "7"}).status_code == 403
    assert viewer_client.post(f"/shares/{newest_report().id}/withdraw").status_code == 403
    assert coordinator_client.post("/shares/999/withdraw").status_code == 404
    coordinator_client.post(f"/campaigns/{campaign_id}/shares", data={"days": "9999"})
    with db.read_only_session() as session:
        assert len(session.scalars(select(SharedReport)).all()) == 1


def test_snapshot_equals_registry_values(database: Engine) -> None:
    campaign_id = make_campaign_with_data()
    with db.transaction() as session:
        link = shared_reports.create_report(session, SYSTEM, campaign_id, days=7, zone=ZoneInfo("Asia/Tehran"))
        session.refresh(link)
        shown, counts = shared_reports.parse_snapshot(link), campaign_performance(session, SYSTEM, campaign_id).counts
        for figure in shown.figures:
            assert figure.value == METRICS[figure.metric.key].value(counts), figure.metric.key
