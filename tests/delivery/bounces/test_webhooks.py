"""Tests of provider webhooks: forged calls change nothing, authentic calls are stored before they are answered."""

import base64
import hmac
import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from flask.testing import FlaskClient
from sqlalchemy import Engine, select

from campaigns import clock, db
from campaigns.accounts.actor import SYSTEM
from campaigns.audience.models import SuppressionReason
from campaigns.delivery.bounces.intake import settings
from campaigns.delivery.bounces.models import FeedbackSource, InboundMessage, Webhook
from campaigns.delivery.bounces.webhooks import ses
from campaigns.delivery.models import SendState
from campaigns.tokens import Purpose, mint_send
from tests.conftest import FrozenClock
from tests.delivery.bounces.corpus import verp_of
from tests.delivery.bounces.test_record import mailed, reason_for, send_of, settle, tallies

ARN = "arn:aws:sns:eu-west-1:123456789012:bounces"
PEM = "https://sns.eu-west-1.amazonaws.com/SimpleNotificationService-1.pem"
RSA_KEY = rsa.generate_private_key(65537, 2048)
EC_KEY = ec.generate_private_key(ec.SECP256R1())


def certificate() -> bytes:
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "sns.amazonaws.com")])
    made = x509.CertificateBuilder(name, name, RSA_KEY.public_key(), 1)
    made = made.not_valid_before(datetime(2026, 1, 1, tzinfo=UTC)).not_valid_after(datetime(2027, 1, 1, tzinfo=UTC))
    return made.sign(RSA_KEY, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)


@pytest.fixture(autouse=True)
def amazon(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    asked: list[str] = []

    def fetch(url: str) -> bytes:
        asked.append(url)
        return certificate()

    monkeypatch.setattr(ses, "fetcher", fetch)
    ses._certificate.cache_clear()
    return asked


def set_up(way: FeedbackSource, secret: str = "", topics: str = "") -> None:
    with db.transaction() as session:
        settings.set_webhook(session, SYSTEM, way, secret, topics, active=True)


def sns(message: dict[str, Any], kind: str = "Notification", **over: str) -> dict[str, str]:
    body = {
        "Type": kind,
        "MessageId": "m1",
        "TopicArn": ARN,
        "Message": json.dumps(message),
        "Timestamp": "2026-11-22T12:00:00.000Z",
        "SignatureVersion": "2",
        "SigningCertURL": PEM,
        **over,
    }
    text = "".join(f"{name}\n{body[name]}\n" for name in ses._SIGNED[kind] if name in body)
    signed = RSA_KEY.sign(text.encode(), padding.PKCS1v15(), hashes.SHA256())
    return {**body, "Signature": base64.b64encode(signed).decode()}


def ses_bounce(send_id: int) -> dict[str, Any]:
    return {
        "notificationType": "Bounce",
        "mail": {"source": verp_of(send_id)},
        "bounce": {
            "bounceType": "Permanent",
            "bounceSubType": "General",
            "feedbackId": "f1",
            "bouncedRecipients": [
                {
                    "emailAddress": "ana@reader.example",
                    "action": "failed",
                    "status": "5.1.1",
                    "diagnosticCode": "smtp; 550 5.1.1 user unknown",
                }
            ],
        },
    }


def test_ses_bounces_and_complaints(database: Engine, client: FlaskClient, frozen: FrozenClock) -> None:
    _, [one, two] = mailed(2)
    set_up(FeedbackSource.SES, topics=ARN)
    assert client.post("/hooks/ses", json=sns(ses_bounce(one))).status_code == 200
    with db.reading() as session:  # stored, not yet processed
        assert [row.feedback_type for row in session.scalars(select(InboundMessage))] == [None]
    settle()
    assert (send_of(one).state, send_of(one).reason) == (SendState.BOUNCED, "hard")
    assert client.post("/hooks/ses", json=sns(ses_bounce(one))).status_code == 200  # delivered twice
    complaint = {
        "eventType": "Complaint",
        "mail": {"headers": [{"name": "Message-ID", "value": f"<{mint_send(Purpose.MESSAGE_ID, two)}@example.org>"}]},
        "complaint": {"feedbackId": "f2", "complainedRecipients": [{"emailAddress": "x@y.example"}]},
    }
    assert client.post("/hooks/ses", json=sns(complaint, MessageId="m2")).status_code == 200
    settle()
    assert reason_for(two) is SuppressionReason.COMPLAINED
    assert tallies() == {"hard": 1, "complaint": 1, "repeated": 1}


@pytest.mark.parametrize(
    "wrong",
    [
        {"SigningCertURL": "https://sns.eu-west-1.amazonaws.com.evil.example/x.pem"},
        {"SigningCertURL": "http://sns.eu-west-1.amazonaws.com/x.pem"},
        {"SigningCertURL": "https://evil.s3.amazonaws.com/x.pem"},
        {"SigningCertURL": "https://user@sns.eu-west-1.amazonaws.com:8443/x.pem"},
        {"TopicArn": ARN + "-other"},
        {"SignatureVersion": "1"},
    ],
)
def test_forged_sns_is_refused(
    database: Engine, client: FlaskClient, frozen: FrozenClock, amazon: list[str], wrong: dict[str, str]
) -> None:
    set_up(FeedbackSource.SES, topics=ARN)
    assert client.post("/hooks/ses", json=sns({}, **wrong)).status_code == 403
    changed = sns({}) | {"Message": "another"}
    assert client.post("/hooks/ses", json=changed).status_code == 403
    assert set(amazon) <= {PEM}
    assert tallies() == {"refused": 2}
    with db.reading() as session:
        assert session.scalars(select(InboundMessage)).all() == []


def test_a_subscription_waits_for_a_person(
    database: Engine, client: FlaskClient, owner_client: FlaskClient, frozen: FrozenClock, amazon: list[str]
) -> None:
    set_up(FeedbackSource.SES, topics=ARN)
    for url, confirmed in (
        ("https://evil.example/?Action=ConfirmSubscription", False),
        (f"https://sns.eu-west-1.amazonaws.com/?Action=ConfirmSubscription&TopicArn={ARN}&Token=t", True),
    ):
        call = sns({}, "SubscriptionConfirmation", SubscribeURL=url, Token="t", MessageId=url)
        assert client.post("/hooks/ses", json=call).status_code == 200
        assert url not in amazon
        assert ARN in owner_client.get("/bounces").get_data(as_text=True)
        assert owner_client.post("/bounces/webhooks/ses/subscription", data={"topic": ARN}).status_code == 303
        assert (url in amazon) is confirmed
    with db.reading() as session:
        assert session.get_one(Webhook, FeedbackSource.SES).topics == {ARN: ""}


def sendgrid_post(client: FlaskClient, events: object, at: datetime, **headers: str) -> int:
    body, told = json.dumps(events).encode(), str(int(at.timestamp()))
    signature = base64.b64encode(EC_KEY.sign(told.encode() + body, ec.ECDSA(hashes.SHA256()))).decode()
    sent = {
        "X-Twilio-Email-Event-Webhook-Signature": signature,
        "X-Twilio-Email-Event-Webhook-Timestamp": told,
        **headers,
    }
    return client.post("/hooks/sendgrid", data=body, headers=sent).status_code


def sendgrid_key() -> str:
    der = EC_KEY.public_key().public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    return base64.b64encode(der).decode()


def test_sendgrid(database: Engine, client: FlaskClient, frozen: FrozenClock) -> None:
    _, ids = mailed(4)
    names = [f"<{mint_send(Purpose.MESSAGE_ID, one)}@example.org>" for one in ids]
    set_up(FeedbackSource.SENDGRID, sendgrid_key())
    events = [
        {
            "event": "bounce",
            "type": "bounce",
            "status": "5.1.1",
            "reason": "550 5.1.1 unknown",
            "sg_event_id": "1",
            "smtp-id": names[0],
        },
        {
            "event": "bounce",
            "type": "blocked",
            "status": "5.7.1",
            "reason": "550 5.7.1 spam",
            "sg_event_id": "2",
            "smtp-id": names[1],
        },
        {"event": "spamreport", "sg_event_id": "3", "smtp-id": names[2]},
        {"event": "open", "sg_event_id": "4", "smtp-id": names[3]},
        {"event": "bounce", "sg_event_id": "5", "smtp-id": "<forged@example.org>"},
    ]
    assert sendgrid_post(client, events, clock.now()) == 200
    assert sendgrid_post(client, [*events, events[3]], clock.now()) == 200  # some events repeated
    settle()
    assert [send_of(one).reason for one in ids] == ["hard", "policy", "", ""]
    assert [reason_for(one) for one in ids] == [
        SuppressionReason.BOUNCED,
        None,
        SuppressionReason.COMPLAINED,
        None,
    ]
    assert tallies() == {"hard": 1, "policy": 1, "complaint": 1, "delivered": 3, "foreign": 2, "repeated": 3}


def test_forged_or_old_calls_of_sendgrid_are_refused(
    database: Engine, client: FlaskClient, frozen: FrozenClock
) -> None:
    set_up(FeedbackSource.SENDGRID, sendgrid_key())
    assert sendgrid_post(client, [], clock.now() - timedelta(days=3)) == 403
    told = "X-Twilio-Email-Event-Webhook-Timestamp"
    assert sendgrid_post(client, [], clock.now(), **{told: "1"}) == 403
    signature = "X-Twilio-Email-Event-Webhook-Signature"
    for wrong in ("", "x", "AAAA"):
        assert sendgrid_post(client, [], clock.now(), **{signature: wrong}) == 403
    assert client.post("/hooks/sendgrid", data=b"x" * (2 * 1024 * 1024 + 1)).status_code == 413


def test_mailgun_counts_each_token_once(database: Engine, client: FlaskClient, frozen: FrozenClock) -> None:
    _, [one, two] = mailed(2)
    set_up(FeedbackSource.MAILGUN, "key-of-mailgun")

    def call(send_id: int, key: str = "key-of-mailgun", at: float | None = None) -> int:
        told = str(int(at or clock.now().timestamp()))
        signed = hmac.new(key.encode(), f"{told}tok".encode(), "sha256").hexdigest()
        event = {
            "event": "failed",
            "severity": "permanent",
            "id": f"e{send_id}",
            "delivery-status": {"code": 550, "message": "5.1.1 unknown user"},
            "message": {"headers": {"message-id": f"{mint_send(Purpose.MESSAGE_ID, send_id)}@example.org"}},
        }
        body = {"signature": {"timestamp": told, "token": "tok", "signature": signed}, "event-data": event}
        return client.post("/hooks/mailgun", json=body).status_code

    assert call(one, key="other") == 403
    assert call(one, at=1.0) == 403
    assert call(one) == 200
    assert call(two) == 200  # the same token with another body
    settle()
    assert (send_of(one).state, send_of(two).state) == (SendState.BOUNCED, SendState.SENT)


def test_postmark_needs_name_and_password(database: Engine, client: FlaskClient, frozen: FrozenClock) -> None:
    _, [one] = mailed()
    set_up(FeedbackSource.POSTMARK, "postmark:a-long-password")
    event = {
        "RecordType": "Bounce",
        "Type": "HardBounce",
        "ID": 7,
        "Email": "a@b.example",
        "Details": "550 5.1.1 unknown",
        "Content": f"Return-Path: <{verp_of(one)}>",
    }
    for auth, status in ((None, 403), (("postmark", "wrong"), 403), (("postmark", "a-long-password"), 200)):
        assert client.post("/hooks/postmark", json=event, auth=auth).status_code == status
    settle()
    assert send_of(one).state is SendState.BOUNCED


def test_brevo_tells_one_event_or_several(database: Engine, client: FlaskClient, frozen: FrozenClock) -> None:
    _, sent = mailed(3)
    one, two, three = sent
    set_up(FeedbackSource.BREVO, "brevo:a-long-password")

    def event(send_id: int, kind: str, reason: str = "") -> dict[str, Any]:
        token = mint_send(Purpose.MESSAGE_ID, send_id)
        # All fields that the documentation lists for a bounce; "id" identifies the webhook.
        return {
            "event": kind,
            "email": "a@b.example",
            "id": 7,
            "date": "2026-11-22 13:35:23",
            "ts": 1795350923,
            "message-id": f"<{token}@example.org>",
            "ts_event": 1795350923,
            "subject": "Tea",
            "template_id": 22,
            "X-Mailin-custom": "some_custom_header",
            "sending_ip": "192.0.2.7",
            "ts_epoch": 1795350923000,
            "tags": ["offers"],
            "reason": reason,
            "contact_id": 8,
            "mirror_link": "https://app.example/log/preview/1",
        }

    several = [event(two, "hard_bounce", "550 5.7.1 not you"), event(three, "opened"), "junk"]
    for body in (event(one, "hard_bounce", "550 5.1.1 unknown"), several[:2], event(three, "spam")):
        assert client.post("/hooks/brevo", json=body).status_code == 403
        assert client.post("/hooks/brevo", json=body, auth=("brevo", "a-long-password")).status_code == 200
    assert client.post("/hooks/brevo", json=several, auth=("brevo", "a-long-password")).status_code == 200
    settle()
    assert send_of(one).state is SendState.BOUNCED
    assert (send_of(two).state, send_of(two).reason) == (SendState.BOUNCED, "policy")
    assert send_of(three).state is SendState.SENT
    assert send_of(three).complained_at is not None


def test_what_nobody_set_up_is_not_there(database: Engine, client: FlaskClient) -> None:
    for name in ("ses", "sendgrid", "mailgun", "postmark", "brevo", "other"):
        assert client.post(f"/hooks/{name}", json={}).status_code == 404


JUNK: list[Callable[[], Any]] = [
    list,
    lambda: {"Type": []},
    lambda: {"Type": "Notification", "TopicArn": ARN},
    lambda: {"Type": "Notification", "TopicArn": [ARN]},
    lambda: "x",
    lambda: None,
    lambda: {"signature": {"timestamp": "1", "token": "t", "signature": "ü"}},
]


@pytest.mark.parametrize("junk", JUNK)
def test_junk_is_refused(database: Engine, client: FlaskClient, frozen: FrozenClock, junk: Callable[[], Any]) -> None:
    set_up(FeedbackSource.SES, topics=ARN)
    set_up(FeedbackSource.MAILGUN, "key-of-mailgun")
    for name in ("ses", "mailgun"):
        assert client.post(f"/hooks/{name}", json=junk()).status_code == 403
