"""Tests of the API for single mails: idempotency, validation, permissions, consent, erasure."""

import re
from typing import Any

import pytest
from flask.testing import FlaskClient
from sqlalchemy import Engine, select

from campaigns import db
from campaigns.accounts import api_keys
from campaigns.accounts.actor import SYSTEM
from campaigns.audience import suppression
from campaigns.audience.erasure import erase_contact
from campaigns.audience.models import ConsentPurpose, SuppressionReason
from campaigns.delivery.models import Send
from campaigns.delivery.queue import scheduler
from campaigns.delivery.transactional import api
from campaigns.delivery.worker.worker import deliver
from campaigns.mail_catcher.store import MailStore
from campaigns.outbox import OutboxMail
from campaigns.web.security.rate_limits import RateLimit
from tests.delivery.launched_activity import grant_consent, parse_mail
from tests.factories import make_contact, make_message
from tests.tracking.fixtures import wsgi_request

REQUEST = {
    "external_id": "order-1",
    "message": "Receipt",
    "to": "Ann@Example.net",
    "fields": {"first_name": "Ann"},
    "transactional": True,
}


@pytest.fixture
def key(database: Engine, client: FlaskClient, owner_client: FlaskClient) -> dict[str, str]:
    """Authorization header of an API key with the scope *mail*; also creates a message named Receipt."""
    with db.transaction() as session:
        make_message(session, name="Receipt")
        _, text = api_keys.create_key(session, SYSTEM, name="Shop", scopes=["mail"], expires_at=None)
    return {"Authorization": f"Bearer {text}"}


def request_mail(client: FlaskClient, key: dict[str, str], **changes: Any) -> Any:
    return client.post("/api/v1/mails", json=REQUEST | changes, headers=key)


def get_mail(client: FlaskClient, key: dict[str, str], send_id: str) -> dict[str, Any]:
    return client.get(f"/api/v1/mails/{send_id}", headers=key).get_json()  # type: ignore[no-any-return]


def deliver_all() -> None:
    work = scheduler.find_due_work()
    assert set(work.deliver) == work.urgent
    for activity_id in work.deliver:
        deliver(activity_id)


def test_error_names_request_fields(client: FlaskClient, key: dict[str, str]) -> None:
    error = request_mail(client, key, to="nobody").get_json()["error"]
    assert [each["field"] for each in error["problems"]] == ["to"]
    error = request_mail(client, key, to=None, message=None).get_json()["error"]
    assert error["message"].startswith("message: This is missing")
    assert "; to: This is missing" in error["message"]


def test_mail_is_sent_once_per_external_id(client: FlaskClient, key: dict[str, str], catcher: int) -> None:
    first, again = request_mail(client, key), request_mail(client, key)
    assert (first.status_code, again.status_code) == (202, 200)
    body = first.get_json()
    assert (body["state"], body["to"], body["new"]) == ("queued", "ann@example.net", True)
    assert again.get_json()["id"] == body["id"]
    deliver_all()
    found = get_mail(client, key, body["id"])
    assert (found["state"], found["external_id"]) == ("sent", "order-1")
    (caught,) = MailStore().mails()
    mail = parse_mail(MailStore().mail(caught.id).raw)  # type: ignore[union-attr]
    assert mail["Auto-Submitted"] == "auto-generated"
    assert mail["List-Unsubscribe"] is None
    assert mail["Subject"] == "News for Ann"


LINKED = (
    "<mjml><mj-body><mj-section><mj-column><mj-text>Hello "
    '<a href="https://shop.example.org/o?a=1&amp;code={{ contact.last_name }}">see it</a>'
    "</mj-text></mj-column></mj-section></mj-body></mjml>"
)


@pytest.mark.parametrize("measured", [False, True])
def test_links_of_single_mail(client: FlaskClient, key: dict[str, str], catcher: int, measured: bool) -> None:
    """Without tracking consent links lead directly to their target, because a single mail has no activity of its own
    that an anonymous click could count for."""
    with db.transaction() as session:
        if measured:
            grant_consent(session, make_contact(session, email="ann@example.net"))
        make_message(session, name="Linked", mjml=LINKED)
    request_mail(client, key, message="Linked", fields={"last_name": "ä 7&x"})
    deliver_all()
    (caught,) = MailStore().mails()
    mail = parse_mail(MailStore().mail(caught.id).raw)  # type: ignore[union-attr]
    goal = "https://shop.example.org/o?a=1&code=%C3%A4%207%26x"
    plain, html = (part.get_content() for part in mail.iter_parts())
    assert (goal in plain, goal.replace("&", "&amp;") in html) == (not measured, not measured)
    if measured:
        (path,) = set(re.findall(r"/c/[^\s\"]+/1\b", plain + html))
        assert wsgi_request(path).headers["Location"] == goal
    else:
        assert "/c/" not in plain + html


def test_consent_is_required_unless_transactional(client: FlaskClient, key: dict[str, str], catcher: int) -> None:
    with db.transaction() as session:
        grant_consent(session, make_contact(session, email="yes@example.net"), ConsentPurpose.EMAIL)
        make_contact(session, email="no@example.net")
        suppression.suppress(session, SYSTEM, "never@example.net", SuppressionReason.COMPLAINED)
    ids = {
        name: request_mail(
            client, key, external_id=name, to=f"{name}@example.net", transactional=transactional
        ).get_json()["id"]
        for name, transactional in (("yes", False), ("no", False), ("stranger", False), ("never", True), ("new", True))
    }
    deliver_all()
    states = {name: get_mail(client, key, send_id) for name, send_id in ids.items()}
    assert {name: (state["state"], state["reason"]) for name, state in states.items()} == {
        "yes": ("sent", ""),
        "no": ("skipped", "no_consent"),
        "stranger": ("skipped", "no_consent"),
        "never": ("skipped", "suppressed"),
        "new": ("sent", ""),
    }
    (caught,) = MailStore().mails(address="yes@example.net")
    mail = parse_mail(MailStore().mail(caught.id).raw)  # type: ignore[union-attr]
    assert mail["List-Unsubscribe"]
    assert mail["Auto-Submitted"] is None


INVALID_CHANGES: list[dict[str, Any]] = [
    {"external_id": ""},
    {"external_id": None},
    {"external_id": "x" * 65},
    {"message": "Nothing"},
    {"message": 10**30},
    {"message": True},
    {"to": "nobody"},
    {"to": 5},
    {"fields": {"Bad Name": "x"}},
    {"fields": {"a": 1}},
    {"fields": {"a": "x" * 1001}},
    {"transactional": "yes"},
    {"strange": 1},
]


def test_invalid_requests(client: FlaskClient, key: dict[str, str]) -> None:
    for changes in INVALID_CHANGES:
        answer = request_mail(client, key, **changes)
        assert answer.status_code == 400, (changes, answer.text)
        assert answer.get_json()["error"]["problems"], changes
    with db.read_only_session() as session:
        assert session.scalars(select(Send)).all() == []


def test_permissions_and_rate_limit(client: FlaskClient, key: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    assert request_mail(client, {}).status_code == 401
    request_mail(client, key)
    assert request_mail(client, key, to="other@example.net").status_code == 409
    for number in ("0", "999", "x", str(2**70)):
        assert client.get(f"/api/v1/mails/{number}", headers=key).status_code == 404
    with db.transaction() as session:
        _, text = api_keys.create_key(session, SYSTEM, name="Other", scopes=["figures"], expires_at=None)
    assert request_mail(client, {"Authorization": f"Bearer {text}"}).status_code == 403
    monkeypatch.setattr(api, "_RATE_LIMIT", RateLimit(count=1, seconds=3600))
    assert [request_mail(client, key).status_code for _ in range(2)] == [200, 429]


def test_erasure_deletes_fields(client: FlaskClient, key: dict[str, str], catcher: int) -> None:
    request_mail(client, key)
    with db.transaction() as session:
        contact = make_contact(session, email="ann@example.net")
        erase_contact(session, SYSTEM, contact.id)
        sends, mails = session.scalars(select(Send)).all(), session.scalars(select(OutboxMail)).all()
        assert [(send.address, send.state.value) for send in sends] == [("erased", "skipped")]
        assert [(mail.address, mail.context) for mail in mails] == [("erased", {})]
