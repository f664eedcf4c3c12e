"""The first run: every page redirects to it, it works once, and concurrent attempts create one organisation."""

from concurrent.futures import ThreadPoolExecutor

import pytest
from flask import Flask
from sqlalchemy import Engine, func, select

from campaigns import db
from campaigns.accounts.models import Organisation, User
from campaigns.accounts.organisation import create_organisation
from campaigns.errors import Conflict, ValidationFailed

FORM = {
    "name": "Kettle & Pine",
    "sender_email": "hello@kettle.example",
    "language": "fa",
    "timezone": "Asia/Tehran",
    "currency": "EUR",
    "owner_name": "Nino",
    "owner_email": " Nino@Kettle.example ",
    "owner_password": "a long secret",
}


def test_every_page_redirects_to_the_first_run(empty_app: Flask) -> None:
    client = empty_app.test_client()
    for path in ("/", "/campaigns", "/sign-in", "/settings"):
        assert client.get(path).headers["Location"] == "/setup"
    assert client.get("/setup").status_code == 200
    assert client.get("/health").status_code == 200


def test_the_form_creates_the_organisation_and_signs_in(empty_app: Flask) -> None:
    client = empty_app.test_client()
    answer = client.post("/setup", data=FORM)
    assert (answer.status_code, answer.headers["Location"]) == (303, "/")
    page = client.get("/me").get_data(as_text=True)
    assert "nino@kettle.example" in page
    assert 'dir="rtl"' in page
    assert client.get("/setup").status_code == 404
    assert client.post("/setup", data=FORM).status_code == 404


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("name", " "),
        ("sender_email", "nobody"),
        ("owner_email", "a@b@c"),
        ("owner_password", "short"),
        ("owner_password", "x" * 500),
        ("owner_password", "aaaaaaaaaaaa"),
        ("timezone", "Mars/Olympus"),
        ("timezone", "../../etc/passwd"),
        ("language", "tlh"),
        ("currency", "euro"),
        ("name", "n" * 300),
    ],
)
def test_invalid_input_is_reported_at_its_field(empty_app: Flask, field: str, value: str) -> None:
    answer = empty_app.test_client().post("/setup", data=FORM | {field: value})
    assert answer.status_code == 400
    assert f'id="{field}-errors"' in answer.get_data(as_text=True)
    with db.read_only_session() as session:
        assert session.scalar(select(func.count()).select_from(Organisation)) == 0


def test_a_race_has_one_winner(database: Engine) -> None:
    def attempt(number: int) -> bool:
        try:
            with db.transaction() as session:
                create_organisation(session, **FORM | {"owner_email": f"p{number}@kettle.example"})
        except Conflict:
            return False
        return True

    with ThreadPoolExecutor(4) as threads:
        assert sum(threads.map(attempt, range(4))) == 1
    with db.read_only_session() as session:
        assert session.scalar(select(func.count()).select_from(User)) == 1


def test_problems_are_reported_together(database: Engine) -> None:
    with pytest.raises(ValidationFailed) as caught, db.transaction() as session:
        create_organisation(session, **FORM | {"name": "", "owner_email": "x", "owner_password": ""})
    assert [problem.field for problem in caught.value.problems] == ["name", "owner_email", "owner_password"]
