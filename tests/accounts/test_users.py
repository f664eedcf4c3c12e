"""Users, profiles, settings and the audit log: permissions, and the protection of the last owner."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager

import pytest
from flask import Flask
from flask.testing import FlaskClient
from sqlalchemy import Engine, select

from campaigns import db
from campaigns.accounts import audit, users
from campaigns.accounts.actor import SYSTEM
from campaigns.accounts.models import AuditLogEntry, Organisation, Role, User
from campaigns.errors import Conflict

PERSON = {"name": "Bob", "email": "bob@acme.example", "role": "viewer", "password": "a long secret"}
SETTINGS = {
    "name": "Acme 2",
    "sender_name": "Acme",
    "sender_email": "hi@acme.example",
    "postal_address": "1 Road\nTown",
    "own_hosts": "www.acme.example\nshop.acme.example, WWW.acme.example",
    "language": "en",
    "timezone": "Asia/Tbilisi",
    "currency": "GEL",
}


def user_with_role(role: Role) -> User:
    with db.read_only_session() as session:
        person = session.scalars(select(User).where(User.role == role)).first()
        assert person is not None
        return person


@pytest.mark.parametrize("path", ["/people", "/people/new", "/settings", "/audit"])
def test_only_the_owner_sees_administration_pages(
    path: str, owner_client: FlaskClient, coordinator_client: FlaskClient, viewer_client: FlaskClient
) -> None:
    assert owner_client.get(path).status_code == 200
    assert coordinator_client.get(path).status_code == 403
    assert viewer_client.get(path).status_code == 403


@pytest.mark.parametrize("path", ["/people/new", "/people/1/lock", "/people/1/unlock", "/people/1/role", "/settings"])
def test_only_the_owner_changes_users_and_settings(path: str, coordinator_client: FlaskClient, app: Flask) -> None:
    assert coordinator_client.post(path, data=PERSON | SETTINGS).status_code == 403


def test_adding_a_user(owner_client: FlaskClient) -> None:
    assert owner_client.post("/people/new", data=PERSON).status_code == 303
    again = owner_client.post("/people/new", data=PERSON | {"email": "BOB@acme.example"})
    assert again.status_code == 400
    assert "is here already" in again.get_data(as_text=True)
    assert owner_client.post("/people/new", data=PERSON | {"role": "king"}).status_code == 400
    assert "bob@acme.example" in owner_client.get("/people").get_data(as_text=True)


def test_the_last_owner_can_not_be_locked_or_demoted(owner_client: FlaskClient) -> None:
    owner = user_with_role(Role.OWNER)
    for path, data in ((f"/people/{owner.id}/lock", {}), (f"/people/{owner.id}/role", {"role": "viewer"})):
        answer = owner_client.post(path, data=data, follow_redirects=True)
        assert "This is the only owner" in answer.get_data(as_text=True)
    assert user_with_role(Role.OWNER).locked_at is None


def test_two_owners_cannot_demote_each_other_at_once(app: Flask) -> None:
    with db.transaction() as session:
        second = users.add_user(
            session, SYSTEM, email="second@acme.example", name="Second", role=Role.OWNER, password="a long secret"
        )
    first = user_with_role(Role.OWNER)

    def demote(person_id: int) -> bool:
        try:
            with db.transaction() as session:
                users.change_role(session, SYSTEM, person_id, Role.VIEWER)
        except Conflict:
            return False
        return True

    with ThreadPoolExecutor(2) as threads:
        assert sorted(threads.map(demote, (first.id, second.id))) == [False, True]


def test_invalid_ids_and_roles(owner_client: FlaskClient) -> None:
    assert owner_client.post("/people/999/lock").status_code == 404
    assert owner_client.post(f"/people/{10**30}/lock").status_code == 404
    assert owner_client.post(f"/people/{user_with_role(Role.VIEWER).id}/role", data={"role": "king"}).status_code == 400


def test_own_profile(viewer_client: FlaskClient) -> None:
    assert (
        viewer_client.post("/me", data={"name": "Vera", "language": "fa", "timezone": "Asia/Tehran"}).status_code == 303
    )
    page = viewer_client.get("/me").get_data(as_text=True)
    assert 'lang="fa" dir="rtl"' in page
    assert viewer_client.post("/me", data={"name": "", "language": "fa", "timezone": ""}).status_code == 400
    assert viewer_client.post("/me/language", data={"language": "en", "next": "/me"}).headers["Location"] == "/me"
    assert 'lang="en" dir="ltr"' in viewer_client.get("/me").get_data(as_text=True)
    assert viewer_client.post("/me/language", data={"language": "tlh"}).status_code == 400


def test_settings(owner_client: FlaskClient) -> None:
    assert owner_client.post("/settings", data=SETTINGS).status_code == 303
    with db.read_only_session() as session:
        saved = session.get_one(Organisation, 1)
    assert saved.own_hosts == ["www.acme.example", "shop.acme.example"]
    assert (saved.name, saved.currency, saved.timezone) == ("Acme 2", "GEL", "Asia/Tbilisi")
    assert "www.acme.example\nshop.acme.example" in owner_client.get("/settings").get_data(as_text=True)
    invalid = owner_client.post(
        "/settings", data=SETTINGS | {"own_hosts": "https://acme.example/", "sender_email": "x"}
    )
    assert invalid.status_code == 400
    assert 'id="own_hosts-errors"' in invalid.get_data(as_text=True)


def test_line_breaks_are_removed_from_mail_header_fields(owner_client: FlaskClient) -> None:
    owner_client.post("/settings", data=SETTINGS | {"sender_name": "Acme\r\nBcc: x@example.org"})
    with db.read_only_session() as session:
        assert session.get_one(Organisation, 1).sender_name == "Acme Bcc: x@example.org"


def test_the_audit_trail_pages_without_more_queries(
    owner_client: FlaskClient, database: Engine, count_queries: Callable[[Engine], AbstractContextManager[list[str]]]
) -> None:
    with db.transaction() as session:
        for number in range(120):
            audit.record(session, SYSTEM, "test", "thing", number, colour="red")
    seen, path = 0, "/audit"
    for size in (25, 25, 25, 25, 20):
        with count_queries(database) as statements:
            page = owner_client.get(path).get_data(as_text=True)
        assert len(statements) <= 6, statements
        seen += page.count(">test</td>")
        assert page.count(">test</td>") == size
        if 'rel="next"' in page:
            path = page.split('rel="next" href="')[1].split('"')[0].replace("&amp;", "&")
    assert seen == 120


def test_the_people_page_counts_its_queries(
    owner_client: FlaskClient, database: Engine, count_queries: Callable[[Engine], AbstractContextManager[list[str]]]
) -> None:
    with count_queries(database) as statements:
        owner_client.get("/people")
    assert len(statements) <= 6, statements


def test_changes_are_written_to_the_audit_log(owner_client: FlaskClient) -> None:
    owner_client.post("/people/new", data=PERSON)
    owner_client.post("/settings", data=SETTINGS)
    with db.read_only_session() as session:
        entries = session.scalars(select(AuditLogEntry).order_by(AuditLogEntry.id)).all()
    assert [(entry.actor_name, entry.action) for entry in entries] == [("Owner", "create"), ("Owner", "update")]
    assert "secret" not in str([entry.detail for entry in entries])
