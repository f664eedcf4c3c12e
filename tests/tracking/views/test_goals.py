"""Tests of the pages of goals, exchange rates and offline imports: permissions, content, rejected input."""

import io
from datetime import UTC, datetime
from decimal import Decimal

import pytest
from flask.testing import FlaskClient
from sqlalchemy import Engine, select

from campaigns import db
from campaigns.accounts.actor import SYSTEM
from tests.factories import make_activity, make_campaign, make_form, make_organisation
from tests.tracking.conversions.test_goals import make_goal, report
from tests.tracking.conversions.test_offline_import import CSV
from tracking.conversions import goal_matching, offline_import
from tracking.models.conversions import ExchangeRate, Goal, GoalKind, OfflineImport


def stored_goals() -> list[Goal]:
    with db.read_only_session() as session:
        return list(session.scalars(select(Goal)))


def test_goal_is_created_once_and_changed(coordinator_client: FlaskClient) -> None:
    form = {"name": "Purchase", "key": "purchase", "kind": "event", "event": "purchase", "value": "12.50"}
    for _ in range(2):
        assert coordinator_client.post("/goals/new", data={**form, "once": "k" * 12}).location == "/goals"
    [goal] = stored_goals()
    assert (goal.kind, goal.match, goal.value) == (GoalKind.EVENT, "purchase", Decimal("12.50"))
    page = coordinator_client.get("/goals").text
    assert "purchase" in page
    assert "€12.50" in page
    assert coordinator_client.get(f"/goals/{goal.id}").status_code == 200
    changed = coordinator_client.post(f"/goals/{goal.id}", data={"name": "Order", "value": ""})
    assert changed.status_code == 303
    [goal] = stored_goals()
    assert (goal.name, goal.value, goal.active) == ("Order", None, False)
    assert "stopped" in coordinator_client.get("/goals").text


@pytest.mark.parametrize(
    ("kind", "field", "wrong"),
    [("event", "event", "a/b"), ("page", "page", "/a b"), ("form", "form", ""), ("stage", "stage", "new")],
)
def test_match_error_is_shown_at_the_field_of_its_kind(
    coordinator_client: FlaskClient, kind: str, field: str, wrong: str
) -> None:
    form = {"name": "G", "key": "g", "kind": kind, field: wrong}
    answer = coordinator_client.post("/goals/new", data=form)
    assert answer.status_code == 400
    assert f'id="{field}-errors"' in answer.text
    assert stored_goals() == []


def test_goal_start_day_uses_organisation_time_zone(coordinator_client: FlaskClient) -> None:
    with db.transaction() as session:
        make_organisation(session).timezone = "Asia/Tbilisi"
    form = {"name": "Order", "key": "order", "kind": "event", "event": "order", "since": "2026-01-15"}
    assert coordinator_client.post("/goals/new", data=form).status_code == 303
    [goal] = stored_goals()
    assert goal.since == datetime(2026, 1, 14, 20, tzinfo=UTC)  # midnight in Tbilisi
    assert "counts from Jan 15, 2026" in coordinator_client.get(f"/goals/{goal.id}").text
    answer = coordinator_client.post("/goals/new", data={**form, "key": "later", "since": "2200-01-01"})
    assert answer.status_code == 400
    assert 'id="since-errors"' in answer.text


def test_form_goal_shows_its_activity(coordinator_client: FlaskClient, viewer_client: FlaskClient) -> None:
    with db.transaction() as session:
        activity = make_activity(session, make_campaign(session), title="Tasting page")
        make_form(session, activity)
        make_goal(session, GoalKind.FORM, str(activity.id), key="tasting")
    assert "Tasting page" in viewer_client.get("/goals").text
    assert viewer_client.get("/goals/new").status_code == 403
    assert viewer_client.post(f"/goals/{stored_goals()[0].id}", data={"name": "x"}).status_code == 403


def test_new_rate_converts_waiting_amounts(coordinator_client: FlaskClient, viewer_client: FlaskClient) -> None:
    with db.transaction() as session:
        make_goal(session)
        report(session, value="100", currency="GEL")
    with db.transaction() as session:
        goal_matching.match_due(session)
    assert "1 conversion" in viewer_client.get("/goals/rates").text
    assert "/goals/rates" in viewer_client.get("/goals").text
    form = {"currency": "GEL", "valid_from": "2020-01-01", "rate": "0.34"}
    assert viewer_client.post("/goals/rates", data=form).status_code == 403
    answer = coordinator_client.post("/goals/rates", data=form, follow_redirects=True)
    assert "1 conversion has a new value" in answer.text
    assert "0.34" in answer.text
    assert "€34.00" in coordinator_client.get("/goals").text
    for wrong in ({"rate": "-1"}, {"currency": "XXQ"}, {"valid_from": "never"}, {"rate": "1e99"}):
        assert coordinator_client.post("/goals/rates", data={**form, **wrong}).status_code == 400
    with db.read_only_session() as session:
        assert len(session.scalars(select(ExchangeRate)).all()) == 1


def test_offline_import_page_polls_until_finished(coordinator_client: FlaskClient) -> None:
    with db.transaction() as session:
        make_goal(session)
    answer = coordinator_client.post("/conversions/import", data={"file": (io.BytesIO(CSV.encode()), "till.csv")})
    page = answer.location
    assert 'hx-trigger="every 1s' in coordinator_client.get(f"{page}/progress").text
    with db.read_only_session() as session:
        [import_id] = offline_import.due_import_ids(session)
    offline_import.run(import_id)
    done = coordinator_client.get(page).text
    assert "every 1s" not in done
    assert "No goal waits for an event of this name." in done
    assert "till.csv" in coordinator_client.get("/conversions/import").text


def test_rejected_rows_csv_escapes_formulas(coordinator_client: FlaskClient, viewer_client: FlaskClient) -> None:
    with db.transaction() as session:
        make_goal(session)
    text = "id,event,value\n=cmd|'/c calc'!A1,nothing,1\n" + "".join(f"r{n},unheard,1\n" for n in range(450))
    answer = coordinator_client.post("/conversions/import", data={"file": (io.BytesIO(text.encode()), "bad.csv")})
    with db.read_only_session() as session:
        [import_id] = offline_import.due_import_ids(session)
    offline_import.run(import_id)
    refused = coordinator_client.get(f"{answer.location}/refused.csv")
    lines = refused.text.splitlines()
    assert len(lines) == 452
    assert "'=cmd" in lines[1]
    assert lines[-1].startswith("452,event,")
    for url in ("/conversions/import", answer.location, f"{answer.location}/refused.csv"):
        assert viewer_client.get(url).status_code == 403


def test_invalid_file_is_rejected(coordinator_client: FlaskClient) -> None:
    for content in (b"", b"a,b\n1,2\n", b"\x00\x01"):
        answer = coordinator_client.post("/conversions/import", data={"file": (io.BytesIO(content), "x.csv")})
        assert answer.status_code == 400, answer.location
    with db.read_only_session() as session:
        assert session.scalars(select(OfflineImport)).all() == []


def test_csv_template_can_be_imported(coordinator_client: FlaskClient, database: Engine) -> None:
    with db.transaction() as session:
        make_goal(session).since = datetime(2026, 1, 1, tzinfo=UTC)
    template = coordinator_client.get("/conversions/import/template.csv")
    coordinator_client.post("/conversions/import", data={"file": (io.BytesIO(template.data), "t.csv")})
    with db.read_only_session() as session:
        [import_id] = offline_import.due_import_ids(session)
    offline_import.run(import_id)
    with db.read_only_session() as session:
        assert [(one.created, one.rejected) for one in session.scalars(select(OfflineImport))] == [(1, 0)]
        assert SYSTEM.id is None


def test_api_documentation_page(viewer_client: FlaskClient, client: FlaskClient) -> None:
    page = viewer_client.get("/api").text
    for words in ("POST /api/v1/events", "DELETE /api/v1/events", "curl", "external_id"):
        assert words in page
    assert client.get("/api").status_code in (302, 303)
