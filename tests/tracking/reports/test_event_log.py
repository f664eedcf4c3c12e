"""Tests of the event log: filters, paging, streaming export, explained labels, and permissions."""

import csv
import io
from collections.abc import Callable
from contextlib import AbstractContextManager
from datetime import timedelta
from html import unescape

import pytest
from flask.testing import FlaskClient
from sqlalchemy import Engine, func, insert, select, update

from campaigns import db
from campaigns.accounts.actor import PERMISSIONS, SYSTEM, Actor, ActorKind
from campaigns.accounts.models import AuditLogEntry, Role
from campaigns.content.models import Link
from campaigns.delivery.models import Send
from campaigns.errors import Forbidden
from campaigns.planning.models import Activity
from tests.tracking.report_fixture import Company, at
from tracking.bots.rules import LabelReason
from tracking.collector.user_agents import client_and_system
from tracking.models.events import Event, HitKind, TrafficLabel, UserAgent
from tracking.reports import event_log
from tracking.reports.event_log import EventFilter

CountQueries = Callable[[Engine], AbstractContextManager[list[str]]]
REASONS = int(LabelReason.BURST | LabelReason.SOON | LabelReason.GATEWAY)


def seed_scanner_clicks(times: int = 3) -> tuple[int, int]:
    """Create a campaign whose newest events are ``times`` scanner clicks; return ``(campaign_id, send_id)``."""
    with db.transaction() as session:
        company = Company(session, contacts=30)
        campaign = company.campaign("Harvest", at(3))
        activity = session.scalars(
            select(Activity).where(Activity.campaign_id == campaign.id).order_by(Activity.id)
        ).first()
        assert activity is not None
        send = session.scalars(
            select(Send).where(Send.activity_id == activity.id, Send.sent_at.is_not(None)).order_by(Send.id)
        ).first()
        assert send is not None
        session.add(UserAgent(id=77, digest=b"7" * 16, text='=HYPERLINK("x")'))
        rows = [
            company.event(activity.id, HitKind.CLICK, TrafficLabel.SCANNER, at(900 + n), send.id, 2)
            | {"reasons": REASONS, "user_agent_id": 77, "network": (104 << 16) | (47 << 8) | 9}
            for n in range(times)
        ]
        session.execute(insert(Event), rows)
        return campaign.id, send.id


def page(client: FlaskClient, url: str, status: int = 200) -> str:
    answer = client.get(url)
    assert answer.status_code == status, answer.text[:1500]
    return unescape(answer.text)


def test_each_criterion_filters(database: Engine) -> None:
    campaign_id, _ = seed_scanner_clicks()
    with db.read_only_session() as session:
        activities = list(event_log.activity_titles(session, campaign_id))

        def count(wanted: EventFilter) -> int:
            return (
                session.scalar(
                    select(func.count()).select_from(event_log.events_query(SYSTEM, activities, wanted).subquery())
                )
                or 0
            )

        everything = count(EventFilter())
        assert everything > count(EventFilter(kind=HitKind.CLICK)) > count(EventFilter(kind=HitKind.CLICK, link=2)) >= 3
        assert count(EventFilter(reason=LabelReason.GATEWAY)) == 3
        assert sum(count(EventFilter(label=label)) for label in TrafficLabel) == everything
        assert sum(count(EventFilter(activity_id=one)) for one in activities) == everything
        assert count(EventFilter(since=at(900), until=at(902))) == 2
        assert len(list(event_log.stream_events(SYSTEM, activities, EventFilter()))) == everything


def test_export_continues_after_a_chunk(database: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    campaign_id, _ = seed_scanner_clicks(7)
    with db.transaction() as session:
        # Equal instants, so that paging must also compare ids.
        session.execute(update(Event).where(Event.at >= at(900)).values(at=at(950)))
    monkeypatch.setattr(event_log, "_CHUNK", 3)
    with db.read_only_session() as session:
        activities = list(event_log.activity_titles(session, campaign_id))
        found = [row[0].id for row in event_log.stream_events(SYSTEM, activities, EventFilter())]
        assert (
            len(found)
            == len(set(found))
            == session.scalar(select(func.count()).select_from(Event).where(Event.activity_id.in_(activities)))
        )


def test_the_list_is_paged_and_counted(
    coordinator_client: FlaskClient, database: Engine, count_queries: CountQueries
) -> None:
    campaign_id, send_id = seed_scanner_clicks(120)
    with count_queries(database) as few:
        first = page(coordinator_client, f"/campaigns/{campaign_id}/events?reason={int(LabelReason.BURST)}&kind=2")
    assert first.count(f'href="/sends/{send_id}"') == 50
    url = first.split('rel="next" href="')[1].split('"')[0]
    assert page(coordinator_client, url).count(f'href="/sends/{send_id}"') == 50
    assert len(few) <= 8
    assert "No such events" in page(coordinator_client, f"/campaigns/{campaign_id}/events?since=2031-01-01T00:00")
    assert page(coordinator_client, f"/campaigns/{campaign_id}/events?label=9&kind=x&reason=3&since=1e9&link=99999")


def test_event_and_send_pages_explain_labels(coordinator_client: FlaskClient, database: Engine) -> None:
    _, send_id = seed_scanner_clicks()
    with db.read_only_session() as session:
        one = session.scalars(select(Event).where(Event.reasons == REASONS)).first()
        assert one is not None
        link = session.scalars(select(Link.label).where(Link.number == 2)).first()
    found = page(coordinator_client, f"/events/{one.id}")
    for words in (
        "Scanner",
        LabelReason.BURST.description,
        "+4",
        "+9",
        "104.47.9.0/24",
        "Exchange Online Protection",
        link or "?",
    ):
        assert words in found
    found = page(coordinator_client, f"/sends/{send_id}")
    assert found.count(LabelReason.GATEWAY.description) == 3
    assert "after delivery" in found
    page(coordinator_client, "/events/424242", 404)
    page(coordinator_client, "/sends/424242", 404)


def test_the_export_runs_no_formula_and_is_audited(coordinator_client: FlaskClient, database: Engine) -> None:
    campaign_id, send_id = seed_scanner_clicks()
    answer = coordinator_client.get(f"/campaigns/{campaign_id}/events.csv?reason={int(LabelReason.BURST)}")
    rows = list(csv.DictReader(io.StringIO(answer.data.decode("utf-8-sig"))))
    answer.close()
    assert len(rows) == 3
    assert {row["program"] for row in rows} == {'\'=HYPERLINK("x")'}
    assert {(row["label"], row["score"], row["send"]) for row in rows} == {("scanner", "9", str(send_id))}
    with db.read_only_session() as session:
        assert session.scalar(select(AuditLogEntry.action).where(AuditLogEntry.subject_kind == "campaign"))


def test_event_log_requires_permission(viewer_client: FlaskClient, database: Engine) -> None:
    campaign_id, send_id = seed_scanner_clicks()
    for url in (
        f"/campaigns/{campaign_id}/events",
        f"/campaigns/{campaign_id}/events.csv",
        f"/sends/{send_id}",
        "/events/1",
    ):
        assert viewer_client.get(url).status_code == 403
    figures = page(viewer_client, f"/campaigns/{campaign_id}/performance")
    assert "Only these enter a rate" in figures
    assert f"/campaigns/{campaign_id}/events" not in figures
    viewer = Actor(ActorKind.USER, 1, "viewer", PERMISSIONS[Role.VIEWER])
    with pytest.raises(Forbidden):
        event_log.stream_events(viewer, [1], EventFilter())


@pytest.mark.parametrize(
    ("agent", "family"),
    [
        ("Mozilla/5.0", ("Apple Mail's prefetch", "")),
        (
            "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML) Chrome/143.0.0.0 Safari/537.36",
            ("Chrome", "Windows"),
        ),
        ("python-requests/2.31", ("python-requests", "")),
        ("", ("", "")),
    ],
)
def test_user_agent_family(agent: str, family: tuple[str, str]) -> None:
    assert client_and_system(agent) == family


def test_label_is_final_after_settle_window(database: Engine) -> None:
    _, send_id = seed_scanner_clicks(1)
    with db.read_only_session() as session:
        last = event_log.send_detail(session, SYSTEM, send_id).events[-1]
    assert last.final_at - last.event.at == timedelta(minutes=15)
    assert last.score == 9
