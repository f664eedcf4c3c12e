"""Error pages: each status, for anonymous visitors, for users, for htmx, and with the database unavailable."""

import logging
from collections.abc import Callable
from pathlib import Path

import pytest
from flask import Flask, abort
from flask.testing import FlaskClient
from sqlalchemy.exc import IntegrityError, OperationalError

from campaigns import db, errors
from campaigns.accounts.models import Role
from campaigns.web.security.current_actor import public
from tests.conftest import signed_in


def view_raising(error: Exception) -> Callable[[], str]:
    @public
    def view() -> str:
        raise error

    return view


ERRORS = {
    "invalid": (
        errors.ValidationFailed(errors.ValidationProblem("Row %(n)s is bad", line=7, params={"n": "50%"})),
        400,
    ),
    "token": (errors.InvalidTokenError("This link has expired."), 400),
    "forbidden": (errors.Forbidden("No."), 403),
    "missing": (errors.NotFound("Gone."), 404),
    "conflict": (errors.Conflict("Already launched."), 409),
    "many": (errors.RateLimited("Wait %(seconds)s s.", 12), 429),
    "passing": (errors.TemporaryError("Later."), 503),
    "other": (errors.KampaniaError("Hm."), 500),
    "crash": (ZeroDivisionError("secret detail"), 500),
    "row": (IntegrityError("INSERT secret", {}, Exception("secret detail")), 409),
    "away": (OperationalError("SELECT secret", {}, Exception("secret detail")), 503),
}
STATUSES = (400, 403, 404, 405, 409, 413, 429, 500, 503)


@pytest.fixture
def failing_app(app: Flask) -> Flask:
    app.config["PROPAGATE_EXCEPTIONS"] = False
    for name, (error, _) in ERRORS.items():
        app.add_url_rule(f"/_{name}", name, view_raising(error))
    for status in STATUSES:
        app.add_url_rule(f"/_{status}", str(status), public(lambda status=status: abort(status)))
    return app


def test_errors_become_pages(failing_app: Flask, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.CRITICAL)
    for client in (failing_app.test_client(), signed_in(failing_app, Role.VIEWER)):
        for name, (_, status) in ERRORS.items():
            answer = client.get(f"/_{name}")
            page = answer.get_data(as_text=True)
            assert answer.status_code == status, name
            assert page.count("<h1") == 1, name
            assert "secret" not in page, name
            assert "Content-Security-Policy" in answer.headers, name
            fragment = client.get(f"/_{name}", headers={"HX-Request": "true"})
            assert fragment.status_code == status, name
            assert "<html" not in fragment.get_data(as_text=True), name
            assert client.get(f"/_{name}", headers={"Accept": "application/json"}).is_json, name


def test_every_status_has_its_page(failing_app: Flask) -> None:
    for status in STATUSES:
        answer = failing_app.test_client().get(f"/_{status}")
        assert answer.status_code == status
        assert "<h1" in answer.get_data(as_text=True)


def test_messages_and_headers_are_kept(failing_app: Flask) -> None:
    client = failing_app.test_client()
    assert "Line 7: Row 50% is bad" in client.get("/_invalid").get_data(as_text=True)
    assert client.get("/_many").headers["Retry-After"] == "12"
    assert "<nav" in signed_in(failing_app, Role.OWNER).get("/_conflict").get_data(as_text=True)


def test_unknown_urls_and_wrong_methods(client: FlaskClient, owner_client: FlaskClient) -> None:
    assert client.get("/nowhere").status_code == 404
    assert owner_client.get("/nowhere/%00/x").status_code == 404
    assert owner_client.post("/audit").status_code == 405


def test_the_database_is_unavailable(app: Flask, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.CRITICAL)
    client = signed_in(app, Role.OWNER)
    before = db.engine()
    db.set_engine(db.make_engine(f"sqlite:///{tmp_path}/nowhere/x.db"))
    try:
        for path in ("/me", "/sign-in", "/people"):
            answer = client.get(path)
            assert answer.status_code == 503
            assert "The database does not answer" in answer.get_data(as_text=True)
        health = client.get("/health")
        assert health.status_code == 503
        assert health.get_json()["checks"]["database"]["ok"] is False
        assert client.get("/static/app.css").status_code == 200
    finally:
        db.engine().dispose()
        db.set_engine(before)


def test_health(client: FlaskClient) -> None:
    answer = client.get("/health")
    assert answer.status_code == 200
    assert answer.get_json()["checks"]["database"] == {"ok": True}


def test_a_request_that_is_too_large(app: Flask, client: FlaskClient) -> None:
    app.config["MAX_CONTENT_LENGTH"] = 1000
    answer = client.post("/sign-in", data={"email": "a@example.org", "password": "x" * 5000})
    assert answer.status_code == 413
    assert "larger than we accept" in answer.get_data(as_text=True)
