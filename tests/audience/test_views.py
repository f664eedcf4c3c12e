"""Audience pages: content, permissions and number of queries."""

import io
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

import pytest
from flask.testing import FlaskClient
from sqlalchemy import Engine, select

from campaigns import db
from campaigns.accounts.actor import SYSTEM
from campaigns.accounts.models import AuditLogEntry
from campaigns.audience import consent, contacts, lists, suppression
from campaigns.audience.imports import runner
from campaigns.audience.models import (
    ConsentLevel,
    ConsentPurpose,
    Contact,
    ContactImport,
    ContactList,
    ImportState,
    Suppression,
    SuppressionReason,
)

Counting = Callable[[Engine], AbstractContextManager[list[str]]]


def get_single_row(kind: type[db.Base]) -> db.Base:
    with db.read_only_session() as session:
        return session.scalars(select(kind)).one()


def add_contact(email: str, **values: Any) -> Contact:
    with db.transaction() as session:
        return contacts.add_contact(session, SYSTEM, email=email, **values)


PAGES = [
    "/contacts",
    "/contacts/new",
    "/contacts/1",
    "/contacts/1/edit",
    "/lists",
    "/lists/1",
    "/imports",
    "/imports/new",
    "/imports/1",
    "/imports/1/mapping",
    "/imports/1/progress",
    "/imports/1/rejected.csv",
    "/suppressions",
]
POSTS = [
    "/contacts/new",
    "/contacts/1/edit",
    "/contacts/1/erase",
    "/contacts/1/consent",
    "/contacts/1/lists",
    "/contacts/1/lists/1/remove",
    "/lists",
    "/lists/1/name",
    "/lists/1/members",
    "/lists/1/members/1/remove",
    "/lists/1/delete",
    "/imports/new",
    "/imports/1/reading",
    "/imports/1/mapping",
    "/imports/1/start",
    "/suppressions",
    "/suppressions/1/lift",
]


def create_sample_rows() -> None:
    contact = add_contact("ann@example.org")
    with db.transaction() as session:
        chosen = lists.create_list(session, SYSTEM, "Fair")
        lists.add_members(session, SYSTEM, chosen.id, [contact.id])
        suppression.suppress(session, SYSTEM, "zed@example.org", SuppressionReason.MANUAL)
    from tests.audience.imports.csv_files import upload_file

    with db.transaction() as session:
        upload_file(session, "email\nbob@example.org\n")


def test_a_viewer_sees_no_persons(viewer_client: FlaskClient) -> None:
    create_sample_rows()
    for url in PAGES:
        response = viewer_client.get(url)
        assert response.status_code == 403, url
        assert "example.org" not in response.text


def test_a_viewer_changes_nothing(viewer_client: FlaskClient) -> None:
    create_sample_rows()
    filled = {"email": "eve@example.org", "name": "Eve", "why": "because", "list_id": "1", "answer": "email:full"}
    for url in POSTS:
        assert viewer_client.post(url, data=filled).status_code == 403, url
    assert get_single_row(Contact).email == "ann@example.org"  # type: ignore[attr-defined]
    assert get_single_row(ContactList).name == "Fair"  # type: ignore[attr-defined]


def test_anonymous_requests_are_redirected_to_login(client: FlaskClient) -> None:
    for url in PAGES:
        assert client.get(url).status_code == 303


def test_contact_list_needs_a_constant_number_of_queries(
    coordinator_client: FlaskClient, database: Engine, count_queries: Counting
) -> None:
    add_contact("a0@example.org")
    with count_queries(database) as few:
        coordinator_client.get("/contacts")
    for n in range(1, 50):
        add_contact(f"a{n}@example.org")
    with count_queries(database) as many:
        page = coordinator_client.get("/contacts").text
    assert len(many) == len(few) <= 6
    assert page.count("@example.org") == 25


def test_contacts_are_found_by_address_name_and_list(coordinator_client: FlaskClient) -> None:
    ann = add_contact("ann@example.org", first_name="Ann", last_name="Lee")
    add_contact("bob_x@example.org", first_name="Bob")
    with db.transaction() as session:
        chosen = lists.create_list(session, SYSTEM, "Fair")
        lists.add_members(session, SYSTEM, chosen.id, [ann.id])
    found = {
        query: [name for name in ("ann@", "bob_x@") if name in coordinator_client.get(f"/contacts?{query}").text]
        for query in ("q=ANN", "q=lee+ann", "q=b_x", "q=%25", "q=%00", f"list={chosen.id}", "list=abc", "after=x")
    }
    assert found == {
        "q=ANN": ["ann@"],
        "q=lee+ann": ["ann@"],
        "q=b_x": ["bob_x@"],
        "q=%25": [],
        "q=%00": ["ann@", "bob_x@"],
        f"list={chosen.id}": ["ann@"],
        "list=abc": ["ann@", "bob_x@"],
        "after=x": ["ann@", "bob_x@"],
    }


def test_badges_show_consent_and_suppression(coordinator_client: FlaskClient) -> None:
    ann = add_contact("ann@example.org")
    assert "Not asked" in coordinator_client.get("/contacts").text
    with db.transaction() as session:
        consent.grant(session, SYSTEM, ann.id, ConsentPurpose.EMAIL, ConsentLevel.FULL, source="form")
    assert "Can be e-mailed" in coordinator_client.get("/contacts").text
    with db.transaction() as session:
        consent.withdraw(session, SYSTEM, ann.id, ConsentPurpose.EMAIL, source="form")
    assert "Withdrawn" in coordinator_client.get("/contacts").text
    with db.transaction() as session:
        suppression.suppress(session, SYSTEM, "ann@example.org", SuppressionReason.BOUNCED)
    assert "Address bounced" in coordinator_client.get("/contacts").text


def test_adding_editing_and_erasing_somebody(coordinator_client: FlaskClient) -> None:
    response = coordinator_client.post(
        "/contacts/new", data={"email": "Ann@Example.org", "first_name": "<b>Ann", "attributes": "city = Lyon"}
    )
    assert response.status_code == 303
    page = coordinator_client.get(response.location).text
    assert "&lt;b&gt;Ann" in page
    assert "contact.city" in page
    assert 'hx-get="/contacts/' in page
    contact = get_single_row(Contact)
    response = coordinator_client.post(
        f"{response.location}/edit", data={"email": "ann@example.org", "timezone": "Asia/Tbilisi", "attributes": ""}
    )
    assert response.status_code == 303
    assert get_single_row(Contact).attributes == {}  # type: ignore[attr-defined]
    assert coordinator_client.post(f"/contacts/{contact.id}/erase").status_code == 303  # type: ignore[attr-defined]
    assert coordinator_client.get(response.location).status_code == 404
    again = coordinator_client.post("/contacts/new", data={"email": "ann@example.org"})
    assert again.status_code == 400
    assert "erased at their wish" in again.text


def test_bad_values_are_named_at_their_fields(coordinator_client: FlaskClient) -> None:
    page = coordinator_client.post(
        "/contacts/new", data={"email": "no", "first_name": "x" * 101, "language": "??", "attributes": "Bad Key = 1"}
    )
    assert page.status_code == 400
    for words in ("has no @", "Longer than 100", "not a language code", "cannot name a field"):
        assert words in page.text


def test_coordinator_cannot_override_a_withdrawal(coordinator_client: FlaskClient) -> None:
    ann = add_contact("ann@example.org")
    url = f"/contacts/{ann.id}/consent"
    assert coordinator_client.post(url, data={"answer": "email:full", "source": "call"}).status_code == 303
    assert coordinator_client.post(url, data={"answer": "email:none", "source": "call"}).status_code == 303
    refused = coordinator_client.post(url, data={"answer": "email:full", "source": "call"})
    assert refused.status_code == 409
    assert "has withdrawn" in refused.text
    assert coordinator_client.post(url, data={"answer": "email:bad", "source": "call"}).status_code == 400


def test_list_lifecycle(coordinator_client: FlaskClient) -> None:
    ann = add_contact("ann@example.org")
    url = coordinator_client.post("/lists", data={"name": "Fair"}).location
    assert coordinator_client.post("/lists", data={"name": "Fair"}).status_code == 400
    coordinator_client.post(f"{url}/members", data={"addresses": "ANN@example.org, nobody@example.org; junk"})
    page = coordinator_client.get(url).text
    assert "ann@example.org" in page
    assert "belong to no contact" in page
    coordinator_client.post(f"{url}/name", data={"name": "Fair 2026"})
    assert "Fair 2026" in coordinator_client.get("/lists").text
    coordinator_client.post(f"{url}/members/{ann.id}/remove")
    assert "ann@example.org" not in coordinator_client.get(url).text
    coordinator_client.post(f"/contacts/{ann.id}/lists", data={"list_id": url.rsplit("/", 1)[1]})
    assert "Fair 2026" in coordinator_client.get(f"/contacts/{ann.id}").text
    assert coordinator_client.post(f"{url}/delete").status_code == 303
    assert coordinator_client.get(url).status_code == 404


def test_many_addresses_are_suppressed_at_once(coordinator_client: FlaskClient) -> None:
    sent = {"email": "ann@example.org\nBob <bob@example.org>,\nnobody", "reason": "unsubscribed"}
    wrong = coordinator_client.post("/suppressions", data=sent)
    assert wrong.status_code == 400
    assert "Line 2" in wrong.text
    assert "Line 3" in wrong.text
    sent["email"] = '"ann@example.org";bob@example.org\n\nANN@example.org '
    page = coordinator_client.post("/suppressions", data=sent, follow_redirects=True).text
    assert "2 addresses are not mailed any more" in page
    with db.read_only_session() as session:
        found = {(row.address, row.reason.value) for row in session.scalars(select(Suppression))}
    assert found == {("ann@example.org", "unsubscribed"), ("bob@example.org", "unsubscribed")}
    many = "\n".join(f"p{number}@example.org" for number in range(suppression.MAX_ADDRESSES_PER_REQUEST + 1))
    assert "At most 1000" in coordinator_client.post("/suppressions", data={"email": many}).text
    assert (
        coordinator_client.post("/suppressions", data={"email": "a@example.org", "reason": "erased"}).status_code == 400
    )


def test_suppressions_are_added_found_and_lifted_with_a_reason(coordinator_client: FlaskClient) -> None:
    coordinator_client.post("/suppressions", data={"email": "Ann@Example.org", "detail": "asked by phone"})
    assert "asked by phone" in coordinator_client.get("/suppressions?q=ann").text
    assert "asked by phone" not in coordinator_client.get("/suppressions?q=bob").text
    one = get_single_row(Suppression)
    coordinator_client.post(f"/suppressions/{one.id}/lift", data={"why": " "})  # type: ignore[attr-defined]
    assert get_single_row(Suppression)
    coordinator_client.post(f"/suppressions/{one.id}/lift", data={"why": "a mistake"})  # type: ignore[attr-defined]
    with db.read_only_session() as session:
        assert session.scalars(select(Suppression)).all() == []
        lifted = session.scalars(select(AuditLogEntry).where(AuditLogEntry.action == "lift")).one()
    assert lifted.detail == {"reason": "manual", "why": "a mistake"}
    assert "ann@" not in str(lifted.detail)


def test_an_erased_person_is_found_by_their_whole_address(coordinator_client: FlaskClient) -> None:
    ann = add_contact("ann@example.org")
    coordinator_client.post(f"/contacts/{ann.id}/erase")
    page = coordinator_client.get("/suppressions?q=Ann@example.org").text
    assert "Only a keyed hash is left" in page
    one = get_single_row(Suppression)
    assert coordinator_client.post(f"/suppressions/{one.id}/lift", data={"why": "x"}).status_code == 409  # type: ignore[attr-defined]


def upload(client: FlaskClient, content: bytes, name: str = "people.csv") -> str:
    response = client.post("/imports/new", data={"file": (io.BytesIO(content), name)})
    assert response.status_code == 303, response.text
    return str(response.location).removesuffix("/mapping")


STATEMENT = {
    "email_consent": "full",
    "tracking_consent": "none",
    "consent_source": "fair",
    "consent_wording": "Yes please",
}


def test_import_from_upload_to_rejected_rows(coordinator_client: FlaskClient) -> None:
    url = upload(coordinator_client, "E-mail;Prénom;Ville\nann@example.org;Ann;Lyon\n=cmd();Bob;Paris\n".encode())
    page = coordinator_client.get(f"{url}/mapping").text
    assert "Semicolon" in page
    assert "Lyon" in page
    filled = {
        "target-1": "email",
        "target-2": "first_name",
        "target-3": "attribute",
        "key-3": "ville",
        "list_id": "",
        "new_list": "Fair",
        **STATEMENT,
    }
    assert coordinator_client.post(f"{url}/mapping", data=filled).location == url
    assert "Waiting for a worker" in coordinator_client.get(url).text
    found = get_single_row(ContactImport)
    assert found.state is ImportState.CHECKING  # type: ignore[attr-defined]
    runner.run(found.id)  # type: ignore[attr-defined]
    page = coordinator_client.get(f"{url}/progress").text
    assert "Import now" in page
    assert "has no @" in page
    coordinator_client.post(f"{url}/start")
    coordinator_client.post(f"{url}/start")
    runner.run(found.id)  # type: ignore[attr-defined]
    page = coordinator_client.get(url).text
    assert "Download the rejected rows" in page
    assert "hx-get" not in page.split('id="import"')[1].split(">")[0]
    rejected = coordinator_client.get(f"{url}/rejected.csv")
    assert rejected.mimetype == "text/csv"
    assert rejected.text == (
        "\ufeffRow;Reason;E-mail;Prénom;Ville\r\n"
        "3;“=cmd()” is not an e-mail address: it has no @.;'=cmd();Bob;Paris\r\n"
    )
    assert get_single_row(Contact).attributes == {"ville": "Lyon"}  # type: ignore[attr-defined]
    assert "people.csv" in coordinator_client.get("/imports").text


def test_a_mapping_without_address_or_statement_is_refused(coordinator_client: FlaskClient) -> None:
    url = upload(coordinator_client, b"email,name\nann@example.org,Ann\n")
    filled = {"target-1": "", "target-2": "attribute", "key-2": "Bad Key", "list_id": "", **STATEMENT}
    page = coordinator_client.post(f"{url}/mapping", data=filled)
    assert page.status_code == 400
    assert "Choose the column that holds the e-mail address" in page.text
    filled = {"target-1": "email", "list_id": "", **STATEMENT, "consent_wording": "", "new_list": "Fair"}
    page = coordinator_client.post(f"{url}/mapping", data=filled)
    assert page.status_code == 400
    assert "Give the words" in page.text
    with db.read_only_session() as session:
        assert session.scalars(select(ContactList)).all() == []


def test_csv_options_can_be_changed(coordinator_client: FlaskClient) -> None:
    url = upload(coordinator_client, "email,имя\nann@example.org,Анна\n".encode("cp1251"))
    page = coordinator_client.get(f"{url}/mapping").text
    assert "Анна" in page
    assert "We assume Windows-1251" in page
    coordinator_client.post(f"{url}/reading", data={"encoding": "cp1252", "delimiter": "44", "has_header": "y"})
    assert "Àííà" in coordinator_client.get(f"{url}/mapping").text


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"\x89PNG\r\n\x1a\n" + bytes(range(256)) * 20, "This is a picture"),
        (b"", "The file is empty"),
        (b"\n\n  \n", "The file is empty"),
        (b"PK\x03\x04rest", "Excel"),
        (bytes(range(256)) * 20, "not a text file"),
        (b"," * 600 + b"\n", "The file has"),
    ],
)
def test_non_csv_uploads_are_refused_and_deleted(coordinator_client: FlaskClient, content: bytes, words: str) -> None:
    response = coordinator_client.post("/imports/new", data={"file": (io.BytesIO(content), "x.csv")})
    assert response.status_code == 400
    assert words in response.text
    from campaigns.audience.imports import files

    assert list(files.directory().iterdir()) == []


def test_upload_is_readable_by_this_account_only(coordinator_client: FlaskClient) -> None:
    upload(coordinator_client, b"email\nann@example.org\n", "../../etc/passwd.csv")
    from campaigns.audience.imports import files as imports_files

    (path,) = imports_files.directory().iterdir()
    assert path.stat().st_mode & 0o777 == 0o600
    assert "passwd" not in path.name
    assert get_single_row(ContactImport).filename == "passwd.csv"  # type: ignore[attr-defined]


def test_ids_beyond_64_bits_are_not_found(coordinator_client: FlaskClient) -> None:
    for url in PAGES:
        if "/1" in url:
            assert coordinator_client.get(url.replace("/1", f"/{2**70}")).status_code == 404, url
    assert coordinator_client.get(f"/contacts?list={2**70}").status_code == 200
