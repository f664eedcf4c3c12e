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
from campaigns.tokens import Purpose, mint_send_token
from tests.conftest import NOON, FrozenClock
from tests.delivery.launched_activity import load_sends, make_mailing

ONE_CLICK = {"List-Unsubscribe": "One-Click"}


def make_send() -> Send:
    with db.transaction() as session:
        activity_id = make_mailing(session, 1).id
    expand(activity_id)
    return load_sends(activity_id)[0]


def suppressed_addresses() -> list[str | None]:
    with db.read_only_session() as session:
        return list(session.scalars(select(Suppression.address)))


def email_consent(contact_id: int | None) -> ConsentLevel:
    assert contact_id is not None
    with db.read_only_session() as session:
        return consent.levels_as_of(session, [contact_id], ConsentPurpose.EMAIL, clock.now())[contact_id]


@pytest.mark.parametrize("content_type", ["application/x-www-form-urlencoded", "multipart/form-data"])
def test_one_click(app: Flask, content_type: str) -> None:
    app.config["WTF_CSRF_ENABLED"] = True
    client = app.test_client()
    send = make_send()
    where = f"/u/{mint_send_token(Purpose.UNSUBSCRIBE, send.id)}"
    for method in ("GET", "HEAD"):
        assert client.open(where, method=method).status_code == 200
    assert suppressed_addresses() == []
    for _ in range(2):
        answer = client.post(where, data=ONE_CLICK, content_type=content_type)
        assert answer.status_code == 200
    assert suppressed_addresses() == [send.address]
    assert email_consent(send.contact_id) is ConsentLevel.NONE
    assert load_sends(send.activity_id)[0].unsubscribed_at is not None
    with db.read_only_session() as session:
        assert len(session.scalars(select(ConsentEntry).where(ConsentEntry.level == ConsentLevel.NONE)).all()) == 1


def test_page_names_the_sender(client: FlaskClient) -> None:
    page = client.get(f"/u/{mint_send_token(Purpose.UNSUBSCRIBE, make_send().id)}").text
    assert "Acme" in page
    assert "1 Main Street" in page
    assert "Kampania" not in page.partition("<body")[2]


def test_undo(client: FlaskClient) -> None:
    send = make_send()
    where = f"/u/{mint_send_token(Purpose.UNSUBSCRIBE, send.id)}"
    client.post(f"{where}/undo")  # Before unsubscribing: no effect.
    client.post(where)
    back = client.post(f"{where}/undo")
    assert back.status_code == 200
    assert suppressed_addresses() == []
    assert email_consent(send.contact_id) is ConsentLevel.FULL
    assert load_sends(send.activity_id)[0].unsubscribed_at is None


def make_send_with_consent(*, has_consent: bool = True) -> Send:
    """A send of a launch; without ``allowed`` its contact has no consent any more."""
    send = make_send()
    if not has_consent:
        with db.transaction() as session:
            session.execute(delete(ConsentEntry))
    return send


def undo(client: FlaskClient, send: Send) -> str:
    return client.post(f"/u/{mint_send_token(Purpose.UNSUBSCRIBE, send.id)}/undo").text


def unsubscribe(client: FlaskClient, send: Send) -> None:
    assert client.post(f"/u/{mint_send_token(Purpose.UNSUBSCRIBE, send.id)}").status_code == 200


def test_undo_grants_no_new_consent(client: FlaskClient) -> None:
    send = make_send_with_consent(has_consent=False)
    unsubscribe(client, send)
    assert "still do not write" in undo(client, send)
    assert suppressed_addresses() == []
    assert email_consent(send.contact_id) is ConsentLevel.NONE


def test_undo_keeps_another_unsubscription(client: FlaskClient) -> None:
    send = make_send_with_consent()
    with db.transaction() as session:
        suppression.suppress(session, SYSTEM, send.address, SuppressionReason.UNSUBSCRIBED, "by telephone")
    unsubscribe(client, send)
    assert "still do not write" in undo(client, send)
    assert suppressed_addresses() == [send.address]


def test_undo_keeps_a_later_withdrawal(client: FlaskClient) -> None:
    send = make_send_with_consent()
    unsubscribe(client, send)
    assert send.contact_id is not None
    with db.transaction() as session:
        consent.withdraw(session, SYSTEM, send.contact_id, ConsentPurpose.EMAIL, source="telephone")
    undo(client, send)
    assert email_consent(send.contact_id) is ConsentLevel.NONE


def test_undo_restores_a_bounce_suppression(client: FlaskClient) -> None:
    send = make_send_with_consent()
    with db.transaction() as session:
        suppression.suppress(session, SYSTEM, send.address, SuppressionReason.BOUNCED, "550 no such user")
    unsubscribe(client, send)
    undo(client, send)
    with db.read_only_session() as session:
        assert suppression.reason_for(session, send.address) is SuppressionReason.BOUNCED


def test_undo_expires_after_24_hours(client: FlaskClient, frozen: FrozenClock) -> None:
    send = make_send_with_consent()
    unsubscribe(client, send)
    frozen.at = NOON + UNDO_WITHIN - timedelta(seconds=1)
    where = f"/u/{mint_send_token(Purpose.UNSUBSCRIBE, send.id)}"
    assert "Keep writing" in client.get(where).text
    frozen.at = NOON + UNDO_WITHIN
    assert "Keep writing" not in client.get(where).text
    late = client.post(f"{where}/undo")
    assert (late.status_code, "more than 24 hours" in late.text) == (409, True)
    assert suppressed_addresses() == [send.address]
    assert email_consent(send.contact_id) is ConsentLevel.NONE


def test_undo_over_https(app: Flask) -> None:
    app.config["WTF_CSRF_ENABLED"] = True
    client, send = app.test_client(), make_send()
    where, ours = f"/u/{mint_send_token(Purpose.UNSUBSCRIBE, send.id)}", "https://localhost"
    page = client.post(where, base_url=ours)
    token = re.search(r'name="csrf_token"[^>]*value="([^"]+)"', page.text)
    assert token is not None
    # Browsers send a Referer only if the page's Referrer-Policy allows it.
    headers = {} if page.headers["Referrer-Policy"] == "no-referrer" else {"Referer": ours + where}
    answer = client.post(f"{where}/undo", data={"csrf_token": token[1]}, base_url=ours, headers=headers)
    assert answer.status_code == 200
    assert suppressed_addresses() == []


def test_undo_needs_a_csrf_token(app: Flask) -> None:
    app.config["WTF_CSRF_ENABLED"] = True
    send = make_send()
    assert app.test_client().post(f"/u/{mint_send_token(Purpose.UNSUBSCRIBE, send.id)}/undo").status_code == 400


@pytest.mark.parametrize("purpose", [Purpose.ENGAGEMENT, Purpose.BOUNCE, Purpose.MESSAGE_ID])
def test_tokens_of_other_purposes_are_rejected(client: FlaskClient, purpose: Purpose) -> None:
    send = make_send()
    for token in (mint_send_token(purpose, send.id), mint_send_token(Purpose.UNSUBSCRIBE, send.id)[:-1], "x", "%00"):
        for answer in (client.get(f"/u/{token}"), client.post(f"/u/{token}"), client.post(f"/u/{token}/undo")):
            assert answer.status_code == 404
            assert "does not work" in answer.text
    assert client.get(f"/u/{mint_send_token(Purpose.UNSUBSCRIBE, 5 << 32)}").status_code == 404
    assert suppressed_addresses() == []


def test_page_has_the_language_of_the_message(client: FlaskClient) -> None:
    send = make_send()
    with db.transaction() as session:
        version = session.get_one(MessageVersion, send.version_id)
        version.language = "fa"
    shown = client.get(f"/u/{mint_send_token(Purpose.UNSUBSCRIBE, send.id)}", headers={"Accept-Language": "en"})
    assert 'dir="rtl"' in shown.text
    assert shown.headers["Referrer-Policy"] == "same-origin"


def test_a_test_mail_s_link_changes_nothing(client: FlaskClient) -> None:
    with db.transaction() as session:
        send = enqueue.enqueue_send(session, "test", "me@acme.example", "k")
    answer = client.post(f"/u/{mint_send_token(Purpose.UNSUBSCRIBE, send.id)}")
    assert answer.status_code == 200
    assert "nothing is changed" in answer.text
    assert suppressed_addresses() == []
