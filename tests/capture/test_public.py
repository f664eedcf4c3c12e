"""Public landing pages and their submissions."""

import re
from datetime import timedelta
from typing import Any

import pytest
from flask.testing import FlaskClient
from sqlalchemy import select

from campaigns import clock, db
from campaigns.accounts.models import Organisation
from campaigns.audience.models import ConsentEntry, Contact
from campaigns.capture import public
from campaigns.capture.models import Form, Submission
from campaigns.leads.models import Lead
from campaigns.outbox import OutboxMail
from campaigns.tokens import Purpose, keyring
from campaigns.web.security.rate_limits import RateLimit
from tests.conftest import FrozenClock
from tests.factories import make_activity, make_form, make_user


@pytest.fixture(autouse=True)
def high_rate_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(public, "_submission_limit", RateLimit(1000, 60))


def create_form(**values: Any) -> Form:
    with db.transaction() as session:
        return make_form(session, **values)


def external_id(text: str) -> str:
    found = re.search(r'name="external_id" value="([0-9a-f]{32})"', text)
    assert found
    return found[1]


def submit_form(client: FlaskClient, form: Form, query: str = "", **answers: str) -> Any:
    text = client.get(f"/f/{form.slug}{query}").get_data(as_text=True)
    token = re.search(r'name="k" value="([^"]*)"', text)
    hidden = {"external_id": external_id(text)} | ({"k": token[1]} if token else {})
    return client.post(f"/f/{form.slug}", data=hidden | {"email": "ana@example.org"} | answers)


def submissions() -> list[Submission]:
    with db.read_only_session() as session:
        return list(session.scalars(select(Submission)))


def test_page_is_small_and_self_contained(client: FlaskClient) -> None:
    form = create_form()
    page = client.get(f"/f/{form.slug}")
    text = page.get_data(as_text=True)
    assert page.status_code == 200
    assert re.findall("<script[^>]*>", text) == ['<script async src="/k.js">']
    assert "Set-Cookie" not in page.headers
    assert page.headers["Cache-Control"] == "no-store"
    assert "frame-ancestors 'none'" in page.headers["Content-Security-Policy"]
    assert f'src="/v/{form.slug}"' in text
    assert len(text) < 4000
    assert external_id(text) != external_id(client.get(f"/f/{form.slug}").get_data(as_text=True))


def test_submission_creates_contact_lead_and_consent(client: FlaskClient) -> None:
    form = create_form(notify_owner=True)
    with db.transaction() as session:
        from campaigns.planning.models import Activity

        session.get_one(Activity, form.activity_id).owner_id = make_user(session).id
    answer = submit_form(client, form, first_name="Ana", consent="y")
    assert (answer.status_code, answer.location) == (303, f"/f/{form.slug}/thanks")
    thanks = client.get(answer.location)
    assert "Thank you." in thanks.get_data(as_text=True)
    assert "/v/" not in thanks.get_data(as_text=True)
    with db.read_only_session() as session:
        contact = session.scalars(select(Contact)).one()
        assert (contact.email, contact.first_name) == ("ana@example.org", "Ana")
        assert session.scalars(select(Lead)).one().source == "web"
        assert session.scalars(select(ConsentEntry)).one().evidence["network"] == "7f0000/24"
        assert session.scalars(select(OutboxMail)).one().kind == "new_lead"


def test_invalid_input_is_reported_and_kept(client: FlaskClient) -> None:
    form = create_form(
        fields=[
            {"name": "first_name", "label": "First name", "required": False},
            {"name": "attributes.company", "label": "Company", "required": True},
        ]
    )
    page = submit_form(client, form, email="ana at example", first_name="<Ana>", consent="y")
    text = page.get_data(as_text=True)
    assert page.status_code == 422
    assert 'id="email-error"' in text
    assert 'id="attributes-company-error"' in text
    assert 'value="ana at example"' in text
    assert 'value="&lt;Ana&gt;"' in text
    assert "checked" in text
    assert f'src="/v/{form.slug}' not in text
    again = client.post(
        f"/f/{form.slug}",
        data={"external_id": external_id(text), "email": "a@example.org", "attributes-company": "Acme"},
    )
    assert again.status_code == 303


def test_a_double_click_is_one_submission(client: FlaskClient) -> None:
    form = create_form()
    data = {"external_id": "a" * 32, "email": "ana@example.org"}
    for _ in range(2):
        assert client.post(f"/f/{form.slug}", data=data).status_code == 303
    assert len(submissions()) == 1
    assert client.post(f"/f/{form.slug}", data=data | {"email": "beka@example.org"}).status_code == 303
    assert len(submissions()) == 2


@pytest.mark.parametrize("bad", ["", "x", "z" * 32, "a" * 33, "a" * 5000])
def test_invalid_page_id_asks_to_send_again(client: FlaskClient, bad: str) -> None:
    form = create_form()
    page = client.post(f"/f/{form.slug}", data={"external_id": bad, "email": "ana@example.org"})
    assert page.status_code == 422
    assert "send it once more" in page.get_data(as_text=True)
    assert external_id(page.get_data(as_text=True)) != bad


def visit_token(send_id: int, minutes: int = 30) -> str:
    return keyring().mint_expiring(Purpose.VISIT, send_id.to_bytes(8), clock.now() + timedelta(minutes=minutes))


def test_visit_token_sets_the_send_id(client: FlaskClient) -> None:
    form = create_form()
    send_id = (5 << 32) | 7
    token = visit_token(send_id)
    assert f'src="/v/{form.slug}?k={token}"' in client.get(f"/f/{form.slug}?k={token}").get_data(as_text=True)
    assert submit_form(client, form, f"?k={token}").status_code == 303
    assert submissions()[0].send_id == send_id


@pytest.mark.parametrize("kind", ["expired", "forged", "other purpose", "long", "empty", "script"])
def test_a_bad_visit_token_is_ignored(client: FlaskClient, kind: str) -> None:
    form = create_form()
    good = visit_token(7)
    token = {
        "expired": visit_token(7, -1),
        "forged": ("A" if good[0] != "A" else "B") + good[1:],
        "other purpose": keyring().mint(Purpose.ENGAGEMENT, (7).to_bytes(8)),
        "long": "A" * 3000,
        "empty": "",
        "script": '"><script>',
    }[kind]
    assert submit_form(client, form, f"?k={token}").status_code == 303
    assert submissions()[0].send_id is None


def test_closed_form_answers_410(client: FlaskClient) -> None:
    form = create_form(open=False)
    page = client.get(f"/f/{form.slug}")
    assert page.status_code == 410
    assert "This form is closed." in page.get_data(as_text=True)
    assert "<form" not in page.get_data(as_text=True)
    page = client.post(f"/f/{form.slug}", data={"external_id": "a" * 32, "email": "ana@example.org"})
    assert page.status_code == 410
    assert submissions() == []


def test_unknown_slug_is_not_found(client: FlaskClient) -> None:
    for path in ("/f/nothing", "/f/nothing/embed", "/f/nothing/thanks"):
        assert client.get(path).status_code == 404
    assert client.post("/f/nothing").status_code == 404


@pytest.mark.parametrize(("language", "direction"), [("fa", "rtl"), ("ka", "ltr"), ("en", "ltr")])
def test_page_uses_the_language_of_the_form(client: FlaskClient, language: str, direction: str) -> None:
    form = create_form(language=language, title="نمونه")
    for path in ("", "/embed", "/thanks"):
        text = client.get(f"/f/{form.slug}{path}").get_data(as_text=True)
        assert f'<html lang="{language}" dir="{direction}">' in text


def test_only_own_websites_may_embed(client: FlaskClient) -> None:
    form = create_form()
    with db.transaction() as session:
        session.get_one(Organisation, 1).own_hosts = [
            "www.acme.example",
            "shop.acme.example:8443",
            "evil; script-src *",
        ]
    policy = client.get(f"/f/{form.slug}/embed").headers["Content-Security-Policy"]
    ancestors = policy.split("frame-ancestors ")[1].split(";")[0].split()
    assert ancestors == [
        "'self'",
        "https://www.acme.example",
        "http://www.acme.example",
        "https://shop.acme.example:8443",
        "http://shop.acme.example:8443",
    ]
    page = client.get(f"/f/{form.slug}/embed")
    assert "X-Frame-Options" not in page.headers
    answer = client.post(
        f"/f/{form.slug}/embed",
        data={"external_id": external_id(page.get_data(as_text=True)), "email": "a@example.org"},
    )
    assert answer.location == f"/f/{form.slug}/embed/thanks"
    assert "www.acme.example" in client.get(answer.location).headers["Content-Security-Policy"]


def test_submissions_are_rate_limited(
    client: FlaskClient, monkeypatch: pytest.MonkeyPatch, frozen: FrozenClock
) -> None:
    form = create_form()
    monkeypatch.setattr(public, "_submission_limit", RateLimit(2, 60))
    data = {"external_id": "a" * 32, "email": "ana@example.org"}
    codes = [client.post(f"/f/{form.slug}", data=data).status_code for _ in range(3)]
    assert codes == [303, 303, 429]


def test_oversized_submission_is_refused(client: FlaskClient) -> None:
    form = create_form()
    data = {"external_id": "a" * 32, "email": "ana@example.org", "first_name": "x" * 100_000}
    assert client.post(f"/f/{form.slug}", data=data).status_code == 413
    assert submissions() == []


def test_submission_needs_no_csrf_token_and_acts_as_public(owner_client: FlaskClient) -> None:
    form = create_form()
    owner_client.application.config["WTF_CSRF_ENABLED"] = True
    assert (
        owner_client.post(
            f"/f/{form.slug}", data={"external_id": "a" * 32, "email": "ana@example.org", "consent": "y"}
        ).status_code
        == 303
    )
    with db.read_only_session() as session:
        assert session.scalars(select(ConsentEntry.recorded_by)).one() == "public"


def test_the_source_is_the_activity_s_channel(client: FlaskClient) -> None:
    with db.transaction() as session:
        form = make_form(session, make_activity(session, channel="social", everybody=False))
    submit_form(client, form)
    with db.read_only_session() as session:
        assert session.scalars(select(Lead)).one().source == "social"


@pytest.mark.parametrize("embedded", ["", "/embed"])
def test_tracking_consent_has_its_own_checkbox(client: FlaskClient, embedded: str) -> None:
    plain, asking = create_form(), create_form(tracking_wording="You may count my clicks.")
    assert 'name="tracking"' not in client.get(f"/f/{plain.slug}{embedded}").get_data(as_text=True)
    text = client.get(f"/f/{asking.slug}{embedded}").get_data(as_text=True)
    assert "You may count my clicks." in text
    assert text.count('type="checkbox"') == 2
    assert "checked" not in text
    sent = {"external_id": external_id(text), "email": "ana@example.org", "tracking": "y"}
    wrong = client.post(f"/f/{asking.slug}{embedded}", data=sent | {"email": "ana"}).get_data(as_text=True)
    assert wrong.count("checked") == 1
    assert client.post(f"/f/{asking.slug}{embedded}", data=sent).status_code == 303
    with db.read_only_session() as session:
        entry = session.scalars(select(ConsentEntry)).one()
        assert (entry.purpose.value, entry.wording) == ("tracking", "You may count my clicks.")
