"""Tests of unsubscribing (RFC 8058): GET changes nothing, POST unsubscribes at once and without a redirect."""

import re
from datetime import timedelta

import pytest
from flask import Flask
from flask.testing import FlaskClient
from sqlalchemy import delete, select

from campaigns import clock, db
from campaigns.accounts.actor import SYSTEM
from campaigns.audience import consent, suppression
from campaigns.audience.models import ConsentEntry, ConsentLevel, ConsentPurpose, Suppression, SuppressionReason
from campaigns.content.models import MessageVersion
from campaigns.delivery.models import Send
from campaigns.delivery.queue.expansion import expand
from campaigns.delivery.sends.unsubscribe import UNDO_WITHIN
from campaigns.delivery.transactional import enqueue
from campaigns.tokens import Purpose, mint_send
from tests.conftest import NOON, FrozenClock
from tests.delivery.launched_activity import make_mailing, sends

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


def test_the_page_is_the_sender_s(client: FlaskClient) -> None:
    page = client.get(f"/u/{mint_send(Purpose.UNSUBSCRIBE, mailed_once().id)}").text
    assert "Acme" in page
    assert "1 Main Street" in page
    assert "Kampania" not in page.partition("<body")[2]


def test_undo(client: FlaskClient) -> None:
    send = mailed_once()
    where = f"/u/{mint_send(Purpose.UNSUBSCRIBE, send.id)}"
    client.post(f"{where}/undo")  # Before unsubscribing: no effect.
    client.post(where)
    back = client.post(f"{where}/undo")
    assert back.status_code == 200
    assert suppressed() == []
    assert level(send.contact_id) is ConsentLevel.FULL
    assert sends(send.activity_id)[0].unsubscribed_at is None


def make_mailed(*, allowed: bool = True) -> Send:
    """A send of a launch; without ``allowed`` its contact has no consent any more."""
    send = mailed_once()
    if not allowed:
        with db.transaction() as session:
            session.execute(delete(ConsentEntry))
    return send


def undone(client: FlaskClient, send: Send) -> str:
    return client.post(f"/u/{mint_send(Purpose.UNSUBSCRIBE, send.id)}/undo").text


def unsubscribed(client: FlaskClient, send: Send) -> None:
    assert client.post(f"/u/{mint_send(Purpose.UNSUBSCRIBE, send.id)}").status_code == 200


def test_undo_grants_nothing_that_was_not_there(client: FlaskClient) -> None:
    send = make_mailed(allowed=False)
    unsubscribed(client, send)
    assert "still do not write" in undone(client, send)
    assert suppressed() == []
    assert level(send.contact_id) is ConsentLevel.NONE


def test_undo_leaves_another_unsubscription(client: FlaskClient) -> None:
    send = make_mailed()
    with db.transaction() as session:
        suppression.suppress(session, SYSTEM, send.address, SuppressionReason.UNSUBSCRIBED, "by telephone")
    unsubscribed(client, send)
    assert "still do not write" in undone(client, send)
    assert suppressed() == [send.address]


def test_undo_leaves_a_later_answer(client: FlaskClient) -> None:
    send = make_mailed()
    unsubscribed(client, send)
    assert send.contact_id is not None
    with db.transaction() as session:
        consent.withdraw(session, SYSTEM, send.contact_id, ConsentPurpose.EMAIL, source="telephone")
    undone(client, send)
    assert level(send.contact_id) is ConsentLevel.NONE


def test_undo_brings_a_bounce_back(client: FlaskClient) -> None:
    send = make_mailed()
    with db.transaction() as session:
        suppression.suppress(session, SYSTEM, send.address, SuppressionReason.BOUNCED, "550 no such user")
    unsubscribed(client, send)
    undone(client, send)
    with db.reading() as session:
        assert suppression.reason_for(session, send.address) is SuppressionReason.BOUNCED


def test_undo_works_for_a_day(client: FlaskClient, frozen: FrozenClock) -> None:
    send = make_mailed()
    unsubscribed(client, send)
    frozen.at = NOON + UNDO_WITHIN - timedelta(seconds=1)
    where = f"/u/{mint_send(Purpose.UNSUBSCRIBE, send.id)}"
    assert "Keep writing" in client.get(where).text
    frozen.at = NOON + UNDO_WITHIN
    assert "Keep writing" not in client.get(where).text
    late = client.post(f"{where}/undo")
    assert (late.status_code, "more than 24 hours" in late.text) == (409, True)
    assert suppressed() == [send.address]
    assert level(send.contact_id) is ConsentLevel.NONE


def test_undo_over_https(app: Flask) -> None:
    app.config["WTF_CSRF_ENABLED"] = True
    client, send = app.test_client(), mailed_once()
    where, ours = f"/u/{mint_send(Purpose.UNSUBSCRIBE, send.id)}", "https://localhost"
    page = client.post(where, base_url=ours)
    token = re.search(r'name="csrf_token"[^>]*value="([^"]+)"', page.text)
    assert token is not None
    # Browsers send a Referer only if the page's Referrer-Policy allows it.
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
        send = enqueue.add(session, "test", "me@acme.example", "k")
    answer = client.post(f"/u/{mint_send(Purpose.UNSUBSCRIBE, send.id)}")
    assert answer.status_code == 200
    assert "nothing is changed" in answer.text
    assert suppressed() == []
