"""Sign-in and sign-out, rate limits, password reset, and the end of sessions."""

from datetime import timedelta

import pytest
from flask import Flask
from flask.testing import FlaskClient
from sqlalchemy import select

from campaigns import db
from campaigns.accounts import authentication, passwords, users
from campaigns.accounts.actor import SYSTEM
from campaigns.accounts.models import Role, User
from campaigns.outbox import OutboxMail
from tests.conftest import FrozenClock

PASSWORD = "correct horse"


@pytest.fixture
def person(app: Flask) -> User:
    with db.transaction() as session:
        return users.add_user(
            session, SYSTEM, email="ann@acme.example", name="Ann", role=Role.COORDINATOR, password=PASSWORD
        )


def sign_in(client: FlaskClient, password: str, email: str = "ann@acme.example", **more: str) -> int:
    return client.post("/sign-in", data={"email": email, "password": password, **more}).status_code


def test_sign_in_and_sign_out(client: FlaskClient, person: User) -> None:
    assert client.get("/me").headers["Location"] == "/sign-in?next=/me"
    assert sign_in(client, PASSWORD, "ANN@acme.example ") == 303
    assert client.get("/me").status_code == 200
    client.post("/sign-out")
    assert client.get("/me").status_code == 303


@pytest.mark.parametrize(
    ("email", "password"),
    [
        ("ann@acme.example", "wrong"),
        ("nobody@acme.example", PASSWORD),
        ("ann", PASSWORD),
        ("owner@acme.example", "!"),
        ("a" * 10_000, PASSWORD),
        ("ann@acme.example", "x" * 100_000),
    ],
)
def test_every_failed_sign_in_gives_the_same_message(
    client: FlaskClient, person: User, email: str, password: str
) -> None:
    answer = client.post("/sign-in", data={"email": email, "password": password})
    assert answer.status_code == 400
    assert "do not belong together" in answer.get_data(as_text=True)


def test_verifying_without_a_stored_hash_fails(person: User, monkeypatch: pytest.MonkeyPatch) -> None:
    assert not passwords.verify_password(None, "x")
    assert not passwords.verify_password(passwords.NO_PASSWORD, "nobody knows this one")


def test_sign_in_is_rate_limited_per_address(client: FlaskClient, person: User, frozen: FrozenClock) -> None:
    for _ in range(authentication.MAX_PER_ADDRESS_AND_NETWORK):
        assert sign_in(client, "wrong") == 400
    answer = client.post("/sign-in", data={"email": "ann@acme.example", "password": PASSWORD})
    assert answer.status_code == 429
    assert "wait 15 minutes" in answer.get_data(as_text=True)
    assert answer.headers["Retry-After"] == "900"
    assert sign_in(client, "wrong", "bob@acme.example") == 400
    frozen.at += timedelta(minutes=16)
    assert sign_in(client, PASSWORD) == 303


def test_sign_in_is_rate_limited_per_network(client: FlaskClient, person: User, frozen: FrozenClock) -> None:
    for number in range(authentication.MAX_PER_NETWORK):
        assert sign_in(client, "wrong", f"p{number}@acme.example") == 400
    assert sign_in(client, PASSWORD) == 429


def test_a_successful_sign_in_resets_the_address_limit(client: FlaskClient, person: User) -> None:
    for _ in range(3):
        for _ in range(authentication.MAX_PER_ADDRESS_AND_NETWORK - 1):
            sign_in(client, "wrong")
        assert sign_in(client, PASSWORD) == 303
        client.post("/sign-out")


@pytest.mark.parametrize(
    "target",
    [
        "https://evil.example",
        "//evil.example",
        "/\\evil.example",
        "javascript:alert(1)",
        "/\t/evil.example",
        "\\/evil",
        "evil",
        "http:evil.example",
        "/\n/evil.example",
    ],
)
def test_sign_in_never_redirects_to_another_site(client: FlaskClient, person: User, target: str) -> None:
    answer = client.post("/sign-in", data={"email": "ann@acme.example", "password": PASSWORD, "next": target})
    assert answer.headers["Location"] == "/"


def test_sign_in_redirects_to_the_requested_page(client: FlaskClient, person: User) -> None:
    data = {"email": "ann@acme.example", "password": PASSWORD, "next": "/me?x=1"}
    assert client.post("/sign-in", data=data).headers["Location"] == "/me?x=1"


def test_a_lock_ends_sessions(client: FlaskClient, person: User) -> None:
    sign_in(client, PASSWORD)
    with db.transaction() as session:
        users.lock(session, SYSTEM, person.id)
    assert client.get("/me").status_code == 303
    assert sign_in(client, PASSWORD) == 400
    with db.transaction() as session:
        users.unlock(session, SYSTEM, person.id)
    assert client.get("/me").status_code == 303, "the old session is not valid again"
    assert sign_in(client, PASSWORD) == 303


def test_a_new_password_ends_other_sessions(app: Flask, client: FlaskClient, person: User) -> None:
    other = app.test_client()
    sign_in(client, PASSWORD)
    sign_in(other, PASSWORD)
    assert client.post("/me/password", data={"current": "wrong", "password": "another one"}).status_code == 400
    assert client.post("/me/password", data={"current": PASSWORD, "password": "short"}).status_code == 400
    assert client.post("/me/password", data={"current": PASSWORD, "password": "another one"}).status_code == 303
    assert client.get("/me").status_code == 200
    assert other.get("/me").status_code == 303


def reset_link(client: FlaskClient, email: str = "ann@acme.example") -> str | None:
    answer = client.post("/password/forgot", data={"email": email})
    assert answer.status_code == 200
    with db.read_only_session() as session:
        mail = session.scalars(select(OutboxMail).order_by(OutboxMail.id.desc())).first()
    return mail.context["link"].removeprefix("http://localhost") if mail else None


def test_password_reset(client: FlaskClient, person: User, frozen: FrozenClock) -> None:
    link = reset_link(client)
    assert link is not None
    page = client.get(link)
    assert page.status_code == 200
    assert page.headers["Referrer-Policy"] == "same-origin"
    assert client.post(link, data={"password": "short"}).status_code == 400
    assert client.post(link, data={"password": "a new password"}).status_code == 303
    assert client.get("/me").status_code == 200
    assert client.get(link).status_code == 400, "it works once"
    client.post("/sign-out")
    assert sign_in(client, PASSWORD) == 400
    assert sign_in(client, "a new password") == 303


def test_a_reset_link_expires(client: FlaskClient, person: User, frozen: FrozenClock) -> None:
    link = reset_link(client)
    assert link is not None
    assert client.get(link[:-1]).status_code == 400
    frozen.at += timedelta(hours=3)
    assert client.get(link).status_code == 400


def test_an_unknown_address_gets_no_mail_and_the_same_page(client: FlaskClient, person: User) -> None:
    assert reset_link(client, "nobody@acme.example") is None
    assert reset_link(client, "not an address") is None


def test_resets_are_rate_limited(client: FlaskClient, person: User, frozen: FrozenClock) -> None:
    for _ in range(authentication.MAX_RESETS + 3):
        reset_link(client)
    with db.read_only_session() as session:
        assert len(session.scalars(select(OutboxMail)).all()) == authentication.MAX_RESETS


def test_old_attempts_are_purged(client: FlaskClient, person: User, frozen: FrozenClock) -> None:
    sign_in(client, "wrong")
    frozen.at += timedelta(minutes=20)
    with db.transaction() as session:
        assert authentication.purge_expired(session) == 3


def test_nul_is_refused(client: FlaskClient, person: User) -> None:
    answer = client.post("/sign-in", data={"email": "\x00", "password": PASSWORD})
    assert answer.status_code == 400
    assert client.get("/me").status_code == 303
