"""Landing page forms: service functions and editor pages."""

import re
from typing import Any

import pytest
from flask.testing import FlaskClient
from sqlalchemy import select
from sqlalchemy.orm import Session

from campaigns import db
from campaigns.accounts.actor import PUBLIC, Actor
from campaigns.accounts.models import AuditLogEntry
from campaigns.capture.form_editing import FormQuestion, create_form, generate_slug, update_form
from campaigns.capture.models import Form
from campaigns.errors import Forbidden, ValidationFailed
from campaigns.planning.models import Activity, Channel
from tests.factories import make_activity, make_form, make_user


@pytest.fixture
def actor(session: Session) -> Actor:
    return Actor.of_user(make_user(session))


@pytest.fixture
def activity(session: Session) -> Activity:
    return make_activity(session, channel=Channel.WEB, everybody=False)


def create(session: Session, actor: Actor, activity: Activity, **fields: Any) -> Form:
    return create_form(
        session, actor, campaign_id=activity.campaign_id, activity_id=activity.id, **{"title": "Ask us", **fields}
    )


def test_create_and_update(session: Session, actor: Actor, activity: Activity) -> None:
    form = create(session, actor, activity, fields=[FormQuestion("attributes.company", " Company ", True)])
    assert form.slug.startswith("ask-us-")
    assert (form.button, form.open) == ("Send", True)
    assert form.fields == [{"name": "attributes.company", "label": "Company", "required": True}]
    update_form(session, actor, form, title="Ask again", open=False)
    update_form(session, actor, form, title="Ask again")
    assert (form.title, form.open, len(form.fields)) == ("Ask again", False, 1)
    session.flush()
    assert list(session.scalars(select(AuditLogEntry.action).order_by(AuditLogEntry.id))) == ["create", "update"]


@pytest.mark.parametrize(
    ("fields", "at"),
    [
        ({"title": " "}, "title"),
        ({"title": "x" * 201}, "title"),
        ({"button": ""}, "button"),
        ({"slug": "ASK us"}, "slug"),
        ({"slug": "-ask"}, "slug"),
        ({"slug": "x" * 81}, "slug"),
        ({"list_id": 987654}, "list_id"),
        ({"language": "tlh"}, "language"),
        ({"fields": [FormQuestion("email", "E-mail")]}, "fields"),
        ({"fields": [FormQuestion("attributes.Comp any", "Company")]}, "fields"),
        ({"fields": [FormQuestion("first_name", "")]}, "fields"),
        ({"fields": [FormQuestion("first_name", "A"), FormQuestion("first_name", "B")]}, "fields"),
        ({"fields": [FormQuestion(f"attributes.a{n}", "A") for n in range(21)]}, "fields"),
    ],
)
def test_bad_input_changes_nothing(
    session: Session, actor: Actor, activity: Activity, fields: dict[str, Any], at: str
) -> None:
    with pytest.raises(ValidationFailed) as caught:
        create(session, actor, activity, **fields)
    assert {problem.field for problem in caught.value.problems} == {at}
    form = make_form(session, activity)
    title = form.title
    with pytest.raises(ValidationFailed):
        update_form(session, actor, form, **fields)
    assert form.title == title


def test_slug_and_activity_are_unique(session: Session, actor: Actor, activity: Activity) -> None:
    form = create(session, actor, activity)
    other = make_activity(session)
    with pytest.raises(ValidationFailed, match="this address already"):
        create(session, actor, other, slug=form.slug)
    with pytest.raises(ValidationFailed, match="landing page already"):
        create(session, actor, activity)
    second = create(session, actor, other)
    with pytest.raises(ValidationFailed, match="this address already"):
        update_form(session, actor, second, slug=form.slug)


@pytest.mark.parametrize("title", ["", "نمونه رایگان", "გაზაფხული", "!!!", "x" * 500, "Été à Tbilisi"])
def test_any_title_gives_a_slug(title: str) -> None:
    assert 0 < len(generate_slug(title)) <= 80
    assert generate_slug(title) != generate_slug(title)
    assert generate_slug(title).replace("-", "").isalnum()


def test_permissions(session: Session, activity: Activity) -> None:
    form = make_form(session)
    for actor in (PUBLIC, Actor.of_user(make_user(session, role="viewer"))):
        with pytest.raises(Forbidden):
            create(session, actor, activity)
        with pytest.raises(Forbidden):
            update_form(session, actor, form, title="Mine")


FORM_DATA = {
    "title": "Ask us",
    "intro": "Kept words",
    "questions-0-kind": "first_name",
    "questions-0-key": "",
    "questions-0-label": "First name",
    "questions-1-kind": "",
    "questions-1-key": "",
    "questions-1-label": "Company size",
    "questions-1-required": "y",
    "questions-2-kind": "",
    "questions-2-key": "",
    "questions-2-label": "",
    "button": "Send",
    "thanks": "Thanks",
    "consent_wording": "Yes",
    "tracking_wording": "Count me",
    "slug": "",
    "language": "fa",
    "list_id": "",
    "open": "y",
}


def create_activity() -> int:
    with db.transaction() as session:
        return make_activity(session, channel=Channel.WEB, everybody=False).id


def test_editor_creates_and_updates_the_form(coordinator_client: FlaskClient) -> None:
    url = f"/activities/{create_activity()}/form"
    assert "How it works" in coordinator_client.get(url).get_data(as_text=True)
    answer = coordinator_client.post(url, data=FORM_DATA)
    assert (answer.status_code, answer.location) == (303, url)
    with db.read_only_session() as session:
        form = session.scalars(select(Form)).one()
    assert [row["name"] for row in form.fields] == ["first_name", "attributes.company_size"]
    assert (form.language, form.fields[1]["required"]) == ("fa", True)
    assert (form.consent_wording, form.tracking_wording) == ("Yes", "Count me")
    text = coordinator_client.get(url).get_data(as_text=True)
    assert f'value="http://localhost/f/{form.slug}"' in text
    assert f"&lt;iframe src=&#34;http://localhost/f/{form.slug}/embed&#34;" in text
    assert 'data-copy="#embed"' in text
    changed = FORM_DATA | {"slug": "ask", "title": "Ask", "questions-1-key": "company_size"}
    assert coordinator_client.post(url, data=changed).status_code == 303
    with db.read_only_session() as session:
        form = session.scalars(select(Form)).one()
    assert (form.slug, form.title, form.tracking_wording) == ("ask", "Ask", "Count me")


def test_tracking_consent_is_off_by_default(coordinator_client: FlaskClient) -> None:
    text = coordinator_client.get(f"/activities/{create_activity()}/form").get_data(as_text=True)
    assert re.search(r'<textarea[^>]*name="tracking_wording"[^>]*>\s*</textarea>', text)


def test_invalid_input_is_reported_and_kept(coordinator_client: FlaskClient) -> None:
    url = f"/activities/{create_activity()}/form"
    for wrong in (
        {"slug": "a b"},
        {"title": ""},
        {"tracking_wording": "x" * 5_001},
        {"questions-1-key": "Comp!"},
        {"language": "xx"},
        {"list_id": "999"},
    ):
        answer = coordinator_client.post(url, data=FORM_DATA | wrong)
        assert answer.status_code == 422, wrong
        assert "Kept words" in answer.get_data(as_text=True)


def test_preview_has_no_tracking(coordinator_client: FlaskClient) -> None:
    with db.transaction() as session:
        form = make_form(session)
    page = coordinator_client.get(f"/activities/{form.activity_id}/form/preview")
    text = page.get_data(as_text=True)
    assert page.status_code == 200
    assert "/v/" not in text
    assert "disabled" in text
    assert "frame-ancestors 'self'" in page.headers["Content-Security-Policy"]
    assert coordinator_client.get(f"/activities/{create_activity()}/form/preview").status_code == 404


def test_a_viewer_may_not_edit(viewer_client: FlaskClient) -> None:
    url = f"/activities/{create_activity()}/form"
    assert viewer_client.get(url).status_code == 403
    assert viewer_client.post(url, data=FORM_DATA).status_code == 403
