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

RIGHT = "correct horse"


@pytest.fixture
def person(app: Flask) -> User:
    with db.transaction() as session:
        return users.add_person(
            session, SYSTEM, email="ann@acme.example", name="Ann", role=Role.COORDINATOR, password=RIGHT
        )


def enter(client: FlaskClient, password: str, email: str = "ann@acme.example", **more: str) -> int:
    return client.post("/sign-in", data={"email": email, "password": password, **more}).status_code


def test_in_and_out(client: FlaskClient, person: User) -> None:
    assert client.get("/me").headers["Location"] == "/sign-in?next=/me"
    assert enter(client, RIGHT, "ANN@acme.example ") == 303
    assert client.get("/me").status_code == 200
    client.post("/sign-out")
    assert client.get("/me").status_code == 303


@pytest.mark.parametrize(
    ("email", "password"),
    [
        ("ann@acme.example", "wrong"),
        ("nobody@acme.example", RIGHT),
        ("ann", RIGHT),
        ("owner@acme.example", "!"),
        ("a" * 10_000, RIGHT),
        ("ann@acme.example", "x" * 100_000),
    ],
)
def test_the_wrong_are_all_told_the_same(client: FlaskClient, person: User, email: str, password: str) -> None:
    answer = client.post("/sign-in", data={"email": email, "password": password})
    assert answer.status_code == 400
    assert "do not belong together" in answer.get_data(as_text=True)


def test_an_unknown_address_costs_a_hash_too(person: User, monkeypatch: pytest.MonkeyPatch) -> None:
    assert not passwords.matches(None, "x")
    assert not passwords.matches(passwords.NO_PASSWORD, "nobody knows this one")


def test_guessing_is_slowed_for_the_address(client: FlaskClient, person: User, frozen: FrozenClock) -> None:
    for _ in range(authentication.FOR_ADDRESS):
        assert enter(client, "wrong") == 400
    answer = client.post("/sign-in", data={"email": "ann@acme.example", "password": RIGHT})
    assert answer.status_code == 429
    assert "wait 15 minutes" in answer.get_data(as_text=True)
    assert answer.headers["Retry-After"] == "900"
    assert enter(client, "wrong", "bob@acme.example") == 400
    frozen.at += timedelta(minutes=16)
    assert enter(client, RIGHT) == 303


def test_guessing_is_slowed_for_the_network(client: FlaskClient, person: User, frozen: FrozenClock) -> None:
    for number in range(authentication.FOR_NETWORK):
        assert enter(client, "wrong", f"p{number}@acme.example") == 400
    assert enter(client, RIGHT) == 429


def test_the_right_password_forgets_the_wrong_ones(client: FlaskClient, person: User) -> None:
    for _ in range(3):
        for _ in range(authentication.FOR_ADDRESS - 1):
            enter(client, "wrong")
        assert enter(client, RIGHT) == 303
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
def test_nobody_is_sent_elsewhere(client: FlaskClient, person: User, target: str) -> None:
    answer = client.post("/sign-in", data={"email": "ann@acme.example", "password": RIGHT, "next": target})
    assert answer.headers["Location"] == "/"


def test_one_goes_on_where_one_wanted_to(client: FlaskClient, person: User) -> None:
    data = {"email": "ann@acme.example", "password": RIGHT, "next": "/me?x=1"}
    assert client.post("/sign-in", data=data).headers["Location"] == "/me?x=1"


def test_a_lock_ends_the_session_at_once(client: FlaskClient, person: User) -> None:
    enter(client, RIGHT)
    with db.transaction() as session:
        users.lock(session, SYSTEM, person.id)
    assert client.get("/me").status_code == 303
    assert enter(client, RIGHT) == 400
    with db.transaction() as session:
        users.unlock(session, SYSTEM, person.id)
    assert client.get("/me").status_code == 303, "the old session stays ended"
    assert enter(client, RIGHT) == 303


def test_a_new_password_ends_other_sessions(app: Flask, client: FlaskClient, person: User) -> None:
    other = app.test_client()
    enter(client, RIGHT)
    enter(other, RIGHT)
    assert client.post("/me/password", data={"current": "wrong", "password": "another one"}).status_code == 400
    assert client.post("/me/password", data={"current": RIGHT, "password": "short"}).status_code == 400
    assert client.post("/me/password", data={"current": RIGHT, "password": "another one"}).status_code == 303
    assert client.get("/me").status_code == 200
    assert other.get("/me").status_code == 303


def reset_link(client: FlaskClient, email: str = "ann@acme.example") -> str | None:
    answer = client.post("/password/forgot", data={"email": email})
    assert answer.status_code == 200
    with db.reading() as session:
        mail = session.scalars(select(OutboxMail).order_by(OutboxMail.id.desc())).first()
    return mail.context["link"].removeprefix("http://localhost") if mail else None


def test_a_forgotten_password(client: FlaskClient, person: User, frozen: FrozenClock) -> None:
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
    assert enter(client, RIGHT) == 400
    assert enter(client, "a new password") == 303


def test_a_reset_link_ends(client: FlaskClient, person: User, frozen: FrozenClock) -> None:
    link = reset_link(client)
    assert link is not None
    assert client.get(link[:-1]).status_code == 400
    frozen.at += timedelta(hours=3)
    assert client.get(link).status_code == 400


def test_an_unknown_address_gets_no_mail_and_the_same_page(client: FlaskClient, person: User) -> None:
    assert reset_link(client, "nobody@acme.example") is None
    assert reset_link(client, "not an address") is None


def test_resets_are_few(client: FlaskClient, person: User, frozen: FrozenClock) -> None:
    for _ in range(authentication.RESETS + 3):
        reset_link(client)
    with db.reading() as session:
        assert len(session.scalars(select(OutboxMail)).all()) == authentication.RESETS


def test_old_attempts_are_forgotten(client: FlaskClient, person: User, frozen: FrozenClock) -> None:
    enter(client, "wrong")
    frozen.at += timedelta(minutes=20)
    with db.transaction() as session:
        assert authentication.forget_old(session) == 3


def test_a_sign_that_no_database_keeps_is_refused(client: FlaskClient, person: User) -> None:
    answer = client.post("/sign-in", data={"email": "\x00", "password": RIGHT})
    assert answer.status_code == 400
    assert client.get("/me").status_code == 303
