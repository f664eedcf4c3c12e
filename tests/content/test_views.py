"""Message pages: list, starter templates, editor, previews."""

import re
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

import pytest
from flask.testing import FlaskClient
from sqlalchemy import Engine, select

from campaigns import db
from campaigns.content.models import Message
from campaigns.content.starter_templates import STARTERS
from tests.factories import make_contact, make_message

VALID_MJML = """<mjml><mj-body><mj-section><mj-column><mj-text>Hi {{ contact.first_name }}</mj-text>
<mj-button href="https://shop.example.org/x">Go</mj-button></mj-column></mj-section></mj-body></mjml>"""


def store_message(**values: Any) -> int:
    with db.transaction() as session:
        return make_message(session, **values).id


def load_message(message_id: int) -> Message:
    with db.read_only_session() as session:
        message = session.get(Message, message_id)
        assert message is not None
        return message


def form_data(**values: str) -> dict[str, str]:
    return {
        "revision": "1",
        "name": "Spring",
        "subject": "Hello",
        "preheader": "",
        "language": "en",
        "from_name": "",
        "from_email": "",
        "reply_to": "",
        "mjml": VALID_MJML,
        **values,
    }


def test_empty_list_shows_a_hint(coordinator_client: FlaskClient) -> None:
    page = coordinator_client.get("/messages")
    assert page.status_code == 200
    assert "No messages yet" in page.text


def test_list_needs_a_constant_number_of_queries(
    coordinator_client: FlaskClient,
    database: Engine,
    count_queries: Callable[[Engine], AbstractContextManager[list[str]]],
) -> None:
    store_message()
    with count_queries(database) as few:
        coordinator_client.get("/messages")
    with db.transaction() as session:
        for _ in range(60):
            make_message(session)
    with count_queries(database) as many:
        page = coordinator_client.get("/messages")
    assert len(many) == len(few)
    assert 'rel="next"' in page.text


def test_every_starter_is_shown_and_can_be_used(coordinator_client: FlaskClient) -> None:
    picker = coordinator_client.get("/messages/new")
    assert picker.status_code == 200
    for starter in STARTERS:
        assert f"/messages/starters/{starter.key}/preview" in picker.text
        preview = coordinator_client.get(f"/messages/starters/{starter.key}/preview")
        assert preview.status_code == 200
        assert "kampania-footer" in preview.text
    answer = coordinator_client.post("/messages/new", data={"starter": "letter-fa"})
    assert answer.status_code == 303
    page = coordinator_client.get(answer.headers["Location"])
    assert page.status_code == 200
    assert "عزیز" in page.text


def test_an_unknown_starter_is_not_found(coordinator_client: FlaskClient) -> None:
    assert coordinator_client.post("/messages/new", data={"starter": "../../x"}).status_code == 404
    assert coordinator_client.get("/messages/starters/nothing/preview").status_code == 404


def test_saving(coordinator_client: FlaskClient) -> None:
    number = store_message()
    answer = coordinator_client.post(f"/messages/{number}", data=form_data(name="Autumn"))
    assert answer.status_code == 303
    assert load_message(number).name == "Autumn"
    assert load_message(number).revision == 2


def test_an_unfinished_draft_can_be_saved(coordinator_client: FlaskClient) -> None:
    number = store_message()
    assert coordinator_client.post(f"/messages/{number}", data=form_data(mjml="<mjml><mj-bo")).status_code == 303
    page = coordinator_client.get(f"/messages/{number}")
    assert "This tag cannot be read" in page.text
    assert 'data-line="1"' in page.text


def test_a_second_tab_does_not_overwrite_silently(coordinator_client: FlaskClient) -> None:
    number = store_message()
    coordinator_client.post(f"/messages/{number}", data=form_data(name="First tab"))
    answer = coordinator_client.post(f"/messages/{number}", data=form_data(name="Second tab"))
    assert answer.status_code == 409
    assert "Second tab" in answer.text
    assert "Overwrite with my version" in answer.text
    assert load_message(number).name == "First tab"
    answer = coordinator_client.post(f"/messages/{number}", data=form_data(name="Second tab", overwrite="2"))
    assert answer.status_code == 303
    assert load_message(number).name == "Second tab"


@pytest.mark.parametrize("revision", ["", "x", "-1", "9" * 30, "٣"])
def test_a_damaged_revision_is_a_conflict(coordinator_client: FlaskClient, revision: str) -> None:
    number = store_message()
    assert coordinator_client.post(f"/messages/{number}", data=form_data(revision=revision)).status_code == 409


def test_bad_fields_keep_what_was_typed(coordinator_client: FlaskClient) -> None:
    number = store_message()
    answer = coordinator_client.post(f"/messages/{number}", data=form_data(from_email="not an address", name="Typed"))
    assert answer.status_code == 400
    assert 'value="not an address"' in answer.text
    assert 'value="Typed"' in answer.text
    assert load_message(number).revision == 1


def test_the_check_names_field_and_line(coordinator_client: FlaskClient) -> None:
    number = store_message()
    answer = coordinator_client.post(
        f"/messages/{number}/check",
        data=form_data(mjml=VALID_MJML.replace("contact.first_name", "contact.frist_name")),
    )
    assert answer.status_code == 200
    assert "Unknown merge field contact.frist_name. Did you mean contact.first_name?" in answer.text
    assert "1 error" in answer.text


def test_the_check_lists_links_and_size(coordinator_client: FlaskClient) -> None:
    answer = coordinator_client.post(f"/messages/{store_message()}/check", data=form_data())
    assert "https://shop.example.org/x" in answer.text
    assert "<meter" in answer.text


def test_the_preview_has_an_address_and_a_policy_of_its_own(coordinator_client: FlaskClient) -> None:
    answer = coordinator_client.get(f"/messages/{store_message()}/preview")
    policy = answer.headers["Content-Security-Policy"]
    assert "default-src 'none'" in policy
    assert "sandbox" in policy
    assert "script-src" not in policy
    assert "allow-scripts" not in policy
    assert answer.headers["X-Frame-Options"] == "SAMEORIGIN"
    assert "Hello Sam" in answer.text


def test_the_preview_shows_what_is_not_saved_yet(coordinator_client: FlaskClient) -> None:
    number = store_message()
    answer = coordinator_client.post(
        f"/messages/{number}/preview", data=form_data(mjml=VALID_MJML.replace("Hi", "Ahoy"))
    )
    assert "Ahoy Sam" in answer.text
    assert load_message(number).revision == 1


def test_the_preview_of_a_contact_escapes_what_it_holds(coordinator_client: FlaskClient) -> None:
    with db.transaction() as session:
        contact = make_contact(session, first_name="<script>alert(1)</script>").id
    answer = coordinator_client.post(f"/messages/{store_message()}/preview", data=form_data(contact=str(contact)))
    assert "<script>" not in answer.text
    assert "&lt;script&gt;alert(1)" in answer.text


def test_text_and_dark_previews(coordinator_client: FlaskClient) -> None:
    number = store_message(mjml=next(each for each in STARTERS if each.key == "letter").mjml)
    text = coordinator_client.get(f"/messages/{number}/preview?part=text")
    assert "<pre" in text.text
    assert "Dear Sam" in text.text
    light = coordinator_client.get(f"/messages/{number}/preview").text
    dark = coordinator_client.get(f"/messages/{number}/preview?part=dark").text
    assert "@media (max-width: 0px) {" in light
    assert "@media (min-width: 0px) {" in dark


def test_preview_of_a_broken_message_shows_its_errors(coordinator_client: FlaskClient) -> None:
    answer = coordinator_client.post(f"/messages/{store_message()}/preview", data=form_data(mjml="<mjml>\n<script>"))
    assert answer.status_code == 200
    assert "&lt;script&gt; is not possible in a mail" in answer.text
    assert "<script>" not in answer.text


def test_a_copy(coordinator_client: FlaskClient) -> None:
    number = store_message(name="Original")
    answer = coordinator_client.post(f"/messages/{number}/duplicate")
    assert answer.status_code == 303
    with db.read_only_session() as session:
        assert set(session.scalars(select(Message.name))) == {"Original", "Copy of Original"}


def test_viewer_permissions(viewer_client: FlaskClient) -> None:
    number = store_message()
    assert viewer_client.get("/messages").status_code == 200
    assert viewer_client.get(f"/messages/{number}/preview").status_code == 200
    assert viewer_client.get(f"/messages/{number}").status_code == 403
    assert viewer_client.get("/messages/new").status_code == 403
    for path in (
        "/messages/new",
        f"/messages/{number}",
        f"/messages/{number}/check",
        f"/messages/{number}/duplicate",
        f"/messages/{number}/preview",
    ):
        assert viewer_client.post(path, data=form_data()).status_code == 403, path
    assert load_message(number).revision == 1


def test_anonymous_requests_are_redirected_to_login(client: FlaskClient) -> None:
    number = store_message()
    for path in ("/messages", "/messages/new", f"/messages/{number}", f"/messages/{number}/preview"):
        assert client.get(path).status_code == 303


def test_no_such_message(coordinator_client: FlaskClient) -> None:
    for path in ("/messages/99", "/messages/99/preview"):
        assert coordinator_client.get(path).status_code == 404


def test_sample_contact_has_every_attribute(coordinator_client: FlaskClient) -> None:
    with db.transaction() as session:
        for number in range(6):
            make_contact(session, attributes={"city": "Baku", "card_number": f"4711-{number}"})
    wanted = VALID_MJML.replace("{{ contact.first_name }}", "{{ contact.city }}, {{ contact.card_number }}")
    shown = coordinator_client.get(f"/messages/{store_message(mjml=wanted)}/preview").text
    assert "Baku, card number" in shown  # a value that many contacts share, never one contact's own
    assert "4711" not in shown


def test_test_mail_form_has_an_idempotency_key(coordinator_client: FlaskClient) -> None:
    page = coordinator_client.get(f"/messages/{store_message()}").text
    assert re.search(r'name="key" value="[\w-]{16}"', page)
