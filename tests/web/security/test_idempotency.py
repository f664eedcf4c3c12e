"""Idempotent forms and optimistic locking through the pages."""

import io
import re
from typing import Any

import pytest
from flask.testing import FlaskClient
from sqlalchemy import func, select

from campaigns import db
from campaigns.accounts.models import Organisation
from campaigns.audience.models import Contact, ContactImport, ContactList
from campaigns.capture.models import Form
from campaigns.content.models import Message
from campaigns.leads.models import Lead
from campaigns.planning.models import Activity, Campaign, Channel
from tests.factories import make_activity, make_form, make_message


def form_values(text: str, **values: str) -> dict[str, str]:
    """The values that a browser would submit from the page's form, updated with ``values``."""
    forms = re.findall(r"<form[^>]*method=\"post\".*?</form>", text, re.DOTALL)
    candidates = sorted((one for one in forms if "once" in one or "revision" in one), key=len)
    form = candidates[-1]
    submitted = {}
    for tag in re.findall(r"<input[^>]*>", form):
        name, value = re.search(r'name="([^"]+)"', tag), re.search(r'value="([^"]*)"', tag)
        if name and ("checkbox" not in tag or "checked" in tag):
            submitted[name[1]] = value[1] if value else ""
    for name, options in re.findall(r'<select[^>]*name="([^"]+)"[^>]*>(.*?)</select>', form, re.DOTALL):
        chosen = re.search(r'<option selected value="([^"]*)"', options)
        submitted[name] = chosen[1] if chosen else ""
    for name, words in re.findall(r'<textarea[^>]*name="([^"]+)"[^>]*>(.*?)</textarea>', form, re.DOTALL):
        submitted[name] = words.lstrip()
    return submitted | values


def count_rows(model: type[Any]) -> int:
    with db.read_only_session() as session:
        return session.scalar(select(func.count()).select_from(model)) or 0


def make_activity_id() -> int:
    with db.transaction() as session:
        return make_activity(session, channel=Channel.WEB, everybody=False).id


@pytest.mark.parametrize(
    ("model", "path", "values"),
    [
        (Campaign, "/campaigns/new", {"name": "Spring"}),
        (Activity, "/campaigns/1/activities/new?channel=social", {"title": "A post"}),
        (Message, "/messages/new", {"name": "News"}),
        (ContactList, "/lists", {"name": "Press"}),
        (Contact, "/contacts/new", {"email": "ana@example.org"}),
        (Form, "/activities/1/form", {"title": "Ask us"}),
        (Lead, "/leads/new", {"email": "ana@example.org", "activity_id": "1"}),
    ],
)
def test_a_form_submitted_twice_creates_one_object(
    coordinator_client: FlaskClient, model: type[Any], path: str, values: dict[str, str]
) -> None:
    make_activity_id()
    before = count_rows(model)
    page = coordinator_client.get(path)
    sent = form_values(page.text, **values)
    assert sent["once"]
    answers = [coordinator_client.post(path, data=sent) for _ in range(2)]
    assert [answer.status_code for answer in answers] == [303, 303]
    assert answers[0].location == answers[1].location
    assert count_rows(model) == before + 1


def test_a_new_form_creates_another_object(coordinator_client: FlaskClient) -> None:
    for _ in range(2):
        sent = form_values(coordinator_client.get("/campaigns/new").text, name="Spring")
        coordinator_client.post("/campaigns/new", data=sent)
    assert count_rows(Campaign) == 2


def test_a_refused_form_can_be_submitted_again(coordinator_client: FlaskClient) -> None:
    sent = form_values(coordinator_client.get("/campaigns/new").text, name="")
    assert coordinator_client.post("/campaigns/new", data=sent).status_code == 422
    assert coordinator_client.post("/campaigns/new", data=sent | {"name": "Spring"}).status_code == 303
    assert count_rows(Campaign) == 1


def test_keys_are_separate_per_user(coordinator_client: FlaskClient, owner_client: FlaskClient) -> None:
    sent = form_values(coordinator_client.get("/campaigns/new").text, name="Spring")
    first = coordinator_client.post("/campaigns/new", data=sent)
    assert owner_client.post("/campaigns/new", data=sent).location != first.location


def test_an_upload_sent_twice_is_one_import(coordinator_client: FlaskClient) -> None:
    key = form_values(coordinator_client.get("/imports/new").text)["once"]
    answers = [
        coordinator_client.post("/imports/new", data={"once": key, "file": (io.BytesIO(b"email\na@b.c\n"), "a.csv")})
        for _ in range(2)
    ]
    assert answers[0].location == answers[1].location
    assert count_rows(ContactImport) == 1


EDITED: list[tuple[type[Any], str, str]] = [
    (Campaign, "/campaigns/{campaign}/edit", "name"),
    (Activity, "/activities/{activity}/edit", "title"),
    (Form, "/activities/{activity}/form", "title"),
    (Organisation, "/settings", "name"),
    (Message, "/messages/{message}", "name"),
]


@pytest.mark.parametrize(("model", "path", "field"), EDITED, ids=[row[0].__name__ for row in EDITED])
def test_the_second_of_two_concurrent_saves_fails(
    owner_client: FlaskClient, model: type[Any], path: str, field: str
) -> None:
    with db.transaction() as session:
        form = make_form(session)
        places = {"campaign": form.campaign_id, "activity": form.activity_id, "message": make_message(session).id}
    path = path.format(**places)
    page = owner_client.get(path).text
    first, second = form_values(page, **{field: "Theirs"}), form_values(page, **{field: "Mine & only"})

    def saved_value() -> Any:
        with db.read_only_session() as session:
            return getattr(session.scalars(select(model).order_by(model.id.desc())).first(), field)

    assert owner_client.post(path, data=first).status_code == 303
    response = owner_client.post(path, data=second)
    assert response.status_code == 409
    assert saved_value() == "Theirs"
    conflict = response.text[response.text.index("Somebody else saved") :]
    assert ">Theirs</td>" in conflict
    assert ">Mine &amp; only</td>" in conflict
    assert conflict.count("<tr><th") == 1 + 1  # The header row and the one difference.
    again = form_values(response.text)
    assert again[field] == "Mine &amp; only"
    over = re.search(r'name="overwrite" value="(\d+)"', response.text)
    assert over is not None
    assert owner_client.post(path, data=second | {"overwrite": over[1]}).status_code == 303
    assert saved_value() == "Mine & only"


def test_saving_the_same_again_is_no_conflict(owner_client: FlaskClient) -> None:
    page = owner_client.get("/settings").text
    assert owner_client.post("/settings", data=form_values(page, name="New")).status_code == 303
    assert owner_client.post("/settings", data=form_values(page, name="New")).status_code == 303
