"""RFC 8058: looking changes nothing, a POST acts at once and without a redirect."""

import re

import pytest
from flask import Flask
from flask.testing import FlaskClient
from sqlalchemy import select

from campaigns import clock, db
from campaigns.audience import consent
from campaigns.audience.models import ConsentEntry, ConsentLevel, ConsentPurpose, Suppression
from campaigns.content.models import MessageVersion
from campaigns.delivery import single
from campaigns.delivery.expansion import expand
from campaigns.delivery.models import Send
from campaigns.tokens import Purpose, mint_send
from tests.delivery.mailing import make_mailing, sends

ONE_CLICK = {"List-Unsubscribe": "One-Click"}


def mailed_once() -> Send:
    with db.transaction() as session:
        activity_id = make_mailing(session, 1).id
    expand(activity_id)
    return sends(activity_id)[0]


def suppressed() -> list[str | None]:
    with db.reading() as session:
        return list(session.scalars(select(Suppression.address)))


def level(contact_id: int | None) -> ConsentLevel:
    assert contact_id is not None
    with db.reading() as session:
        return consent.as_of(session, [contact_id], ConsentPurpose.EMAIL, clock.now())[contact_id]


@pytest.mark.parametrize("content_type", ["application/x-www-form-urlencoded", "multipart/form-data"])
def test_one_click(app: Flask, content_type: str) -> None:
    app.config["WTF_CSRF_ENABLED"] = True
    client = app.test_client()
    send = mailed_once()
    where = f"/u/{mint_send(Purpose.UNSUBSCRIBE, send.id)}"
    for method in ("GET", "HEAD"):
        assert client.open(where, method=method).status_code == 200
    assert suppressed() == []
    for _ in range(2):
        answer = client.post(where, data=ONE_CLICK, content_type=content_type)
        assert answer.status_code == 200
    assert suppressed() == [send.address]
    assert level(send.contact_id) is ConsentLevel.NONE
    assert sends(send.activity_id)[0].unsubscribed_at is not None
    with db.reading() as session:
        assert len(session.scalars(select(ConsentEntry).where(ConsentEntry.level == ConsentLevel.NONE)).all()) == 1


def test_undo(client: FlaskClient) -> None:
    send = mailed_once()
    where = f"/u/{mint_send(Purpose.UNSUBSCRIBE, send.id)}"
    client.post(f"{where}/undo")  # before anything was done
    client.post(where)
    back = client.post(f"{where}/undo")
    assert back.status_code == 200
    assert suppressed() == []
    assert level(send.contact_id) is ConsentLevel.FULL
    assert sends(send.activity_id)[0].unsubscribed_at is None


def test_undo_over_https(app: Flask) -> None:
    app.config["WTF_CSRF_ENABLED"] = True
    client, send = app.test_client(), mailed_once()
    where, ours = f"/u/{mint_send(Purpose.UNSUBSCRIBE, send.id)}", "https://localhost"
    page = client.post(where, base_url=ours)
    token = re.search(r'name="csrf_token"[^>]*value="([^"]+)"', page.text)
    assert token is not None
    # What a browser tells depends on the page's own policy.
    told = {} if page.headers["Referrer-Policy"] == "no-referrer" else {"Referer": ours + where}
    answer = client.post(f"{where}/undo", data={"csrf_token": token[1]}, base_url=ours, headers=told)
    assert answer.status_code == 200
    assert suppressed() == []


def test_undo_needs_a_page_of_ours(app: Flask) -> None:
    app.config["WTF_CSRF_ENABLED"] = True
    send = mailed_once()
    assert app.test_client().post(f"/u/{mint_send(Purpose.UNSUBSCRIBE, send.id)}/undo").status_code == 400


@pytest.mark.parametrize("purpose", [Purpose.ENGAGEMENT, Purpose.BOUNCE, Purpose.MESSAGE_ID])
def test_other_tokens_open_nothing(client: FlaskClient, purpose: Purpose) -> None:
    send = mailed_once()
    for token in (mint_send(purpose, send.id), mint_send(Purpose.UNSUBSCRIBE, send.id)[:-1], "x", "%00"):
        for answer in (client.get(f"/u/{token}"), client.post(f"/u/{token}"), client.post(f"/u/{token}/undo")):
            assert answer.status_code == 404
            assert "does not work" in answer.text
    assert client.get(f"/u/{mint_send(Purpose.UNSUBSCRIBE, 5 << 32)}").status_code == 404
    assert suppressed() == []


def test_the_page_speaks_the_message_s_language(client: FlaskClient) -> None:
    send = mailed_once()
    with db.transaction() as session:
        version = session.get_one(MessageVersion, send.version_id)
        version.language = "fa"
    shown = client.get(f"/u/{mint_send(Purpose.UNSUBSCRIBE, send.id)}", headers={"Accept-Language": "en"})
    assert 'dir="rtl"' in shown.text
    assert shown.headers["Referrer-Policy"] == "same-origin"


def test_a_test_mail_s_link_changes_nothing(client: FlaskClient) -> None:
    with db.transaction() as session:
        send = single.add(session, "test", "me@acme.example", "k")
    answer = client.post(f"/u/{mint_send(Purpose.UNSUBSCRIBE, send.id)}")
    assert answer.status_code == 200
    assert "nothing is changed" in answer.text
    assert suppressed() == []
