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
from campaigns.tokens import Purpose, mint_send_token
from tests.conftest import FrozenClock
from tests.delivery.bounces.corpus import envelope_sender
from tests.delivery.bounces.test_record import counts_by_type, make_sends, process_reports, send_of, suppression_reason

ARN = "arn:aws:sns:eu-west-1:123456789012:bounces"
PEM = "https://sns.eu-west-1.amazonaws.com/SimpleNotificationService-1.pem"
RSA_KEY = rsa.generate_private_key(65537, 2048)
EC_KEY = ec.generate_private_key(ec.SECP256R1())


def certificate() -> bytes:
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "sns.amazonaws.com")])
    builder = x509.CertificateBuilder(name, name, RSA_KEY.public_key(), 1)
    builder = builder.not_valid_before(datetime(2026, 1, 1, tzinfo=UTC)).not_valid_after(
        datetime(2027, 1, 1, tzinfo=UTC)
    )
    return builder.sign(RSA_KEY, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)


@pytest.fixture(autouse=True)
def amazon(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    urls: list[str] = []

    def fetch(url: str) -> bytes:
        urls.append(url)
        return certificate()

    monkeypatch.setattr(ses, "fetcher", fetch)
    ses._certificate.cache_clear()
    return urls


def configure_webhook(source: FeedbackSource, secret: str = "", topics: str = "") -> None:
    with db.transaction() as session:
        settings.set_webhook(session, SYSTEM, source, secret, topics, active=True)


def sns_message(message: dict[str, Any], message_type: str = "Notification", **overrides: str) -> dict[str, str]:
    body = {
        "Type": message_type,
        "MessageId": "m1",
        "TopicArn": ARN,
        "Message": json.dumps(message),
        "Timestamp": "2026-11-22T12:00:00.000Z",
        "SignatureVersion": "2",
        "SigningCertURL": PEM,
        **overrides,
    }
    text = "".join(f"{name}\n{body[name]}\n" for name in ses._SIGNED_FIELDS[message_type] if name in body)
    signed = RSA_KEY.sign(text.encode(), padding.PKCS1v15(), hashes.SHA256())
    return {**body, "Signature": base64.b64encode(signed).decode()}


def ses_bounce(send_id: int) -> dict[str, Any]:
    return {
        "notificationType": "Bounce",
        "mail": {"source": envelope_sender(send_id)},
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
    _, [send_id, second_id] = make_sends(2)
    configure_webhook(FeedbackSource.SES, topics=ARN)
    assert client.post("/hooks/ses", json=sns_message(ses_bounce(send_id))).status_code == 200
    with db.read_only_session() as session:  # stored, not yet processed
        assert [row.feedback_type for row in session.scalars(select(InboundMessage))] == [None]
    process_reports()
    assert (send_of(send_id).state, send_of(send_id).reason) == (SendState.BOUNCED, "hard")
    assert client.post("/hooks/ses", json=sns_message(ses_bounce(send_id))).status_code == 200  # delivered twice
    complaint = {
        "eventType": "Complaint",
        "mail": {
            "headers": [
                {"name": "Message-ID", "value": f"<{mint_send_token(Purpose.MESSAGE_ID, second_id)}@example.org>"}
            ]
        },
        "complaint": {"feedbackId": "f2", "complainedRecipients": [{"emailAddress": "x@y.example"}]},
    }
    assert client.post("/hooks/ses", json=sns_message(complaint, MessageId="m2")).status_code == 200
    process_reports()
    assert suppression_reason(second_id) is SuppressionReason.COMPLAINED
    assert counts_by_type() == {"hard": 1, "complaint": 1, "repeated": 1}


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
    configure_webhook(FeedbackSource.SES, topics=ARN)
    assert client.post("/hooks/ses", json=sns_message({}, **wrong)).status_code == 403
    changed = sns_message({}) | {"Message": "another"}
    assert client.post("/hooks/ses", json=changed).status_code == 403
    assert set(amazon) <= {PEM}
    assert counts_by_type() == {"refused": 2}
    with db.read_only_session() as session:
        assert session.scalars(select(InboundMessage)).all() == []


def test_a_subscription_needs_confirmation(
    database: Engine, client: FlaskClient, owner_client: FlaskClient, frozen: FrozenClock, amazon: list[str]
) -> None:
    configure_webhook(FeedbackSource.SES, topics=ARN)
    for url, confirmed in (
        ("https://evil.example/?Action=ConfirmSubscription", False),
        (f"https://sns.eu-west-1.amazonaws.com/?Action=ConfirmSubscription&TopicArn={ARN}&Token=t", True),
    ):
        message = sns_message({}, "SubscriptionConfirmation", SubscribeURL=url, Token="t", MessageId=url)
        assert client.post("/hooks/ses", json=message).status_code == 200
        assert url not in amazon
        assert ARN in owner_client.get("/bounces").get_data(as_text=True)
        assert owner_client.post("/bounces/webhooks/ses/subscription", data={"topic": ARN}).status_code == 303
        assert (url in amazon) is confirmed
    with db.read_only_session() as session:
        assert session.get_one(Webhook, FeedbackSource.SES).topics == {ARN: ""}


def sendgrid_post(client: FlaskClient, events: object, at: datetime, **headers: str) -> int:
    body, timestamp = json.dumps(events).encode(), str(int(at.timestamp()))
    signature = base64.b64encode(EC_KEY.sign(timestamp.encode() + body, ec.ECDSA(hashes.SHA256()))).decode()
    sent = {
        "X-Twilio-Email-Event-Webhook-Signature": signature,
        "X-Twilio-Email-Event-Webhook-Timestamp": timestamp,
        **headers,
    }
    return client.post("/hooks/sendgrid", data=body, headers=sent).status_code


def sendgrid_key() -> str:
    der = EC_KEY.public_key().public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    return base64.b64encode(der).decode()


def test_sendgrid(database: Engine, client: FlaskClient, frozen: FrozenClock) -> None:
    _, ids = make_sends(4)
    message_ids = [f"<{mint_send_token(Purpose.MESSAGE_ID, one)}@example.org>" for one in ids]
    configure_webhook(FeedbackSource.SENDGRID, sendgrid_key())
    events = [
        {
            "event": "bounce",
            "type": "bounce",
            "status": "5.1.1",
            "reason": "550 5.1.1 unknown",
            "sg_event_id": "1",
            "smtp-id": message_ids[0],
        },
        {
            "event": "bounce",
            "type": "blocked",
            "status": "5.7.1",
            "reason": "550 5.7.1 spam",
            "sg_event_id": "2",
            "smtp-id": message_ids[1],
        },
        {"event": "spamreport", "sg_event_id": "3", "smtp-id": message_ids[2]},
        {"event": "open", "sg_event_id": "4", "smtp-id": message_ids[3]},
        {"event": "bounce", "sg_event_id": "5", "smtp-id": "<forged@example.org>"},
    ]
    assert sendgrid_post(client, events, clock.now()) == 200
    assert sendgrid_post(client, [*events, events[3]], clock.now()) == 200  # some events repeated
    process_reports()
    assert [send_of(one).reason for one in ids] == ["hard", "policy", "", ""]
    assert [suppression_reason(one) for one in ids] == [
        SuppressionReason.BOUNCED,
        None,
        SuppressionReason.COMPLAINED,
        None,
    ]
    assert counts_by_type() == {"hard": 1, "policy": 1, "complaint": 1, "delivered": 3, "foreign": 2, "repeated": 3}


def test_forged_or_old_calls_of_sendgrid_are_refused(
    database: Engine, client: FlaskClient, frozen: FrozenClock
) -> None:
    configure_webhook(FeedbackSource.SENDGRID, sendgrid_key())
    assert sendgrid_post(client, [], clock.now() - timedelta(days=3)) == 403
    timestamp = "X-Twilio-Email-Event-Webhook-Timestamp"
    assert sendgrid_post(client, [], clock.now(), **{timestamp: "1"}) == 403
    signature = "X-Twilio-Email-Event-Webhook-Signature"
    for wrong in ("", "x", "AAAA"):
        assert sendgrid_post(client, [], clock.now(), **{signature: wrong}) == 403
    assert client.post("/hooks/sendgrid", data=b"x" * (2 * 1024 * 1024 + 1)).status_code == 413


def test_mailgun_counts_each_token_once(database: Engine, client: FlaskClient, frozen: FrozenClock) -> None:
    _, [one, second_id] = make_sends(2)
    configure_webhook(FeedbackSource.MAILGUN, "key-of-mailgun")

    def call(send_id: int, key: str = "key-of-mailgun", at: float | None = None) -> int:
        timestamp = str(int(at or clock.now().timestamp()))
        signed = hmac.new(key.encode(), f"{timestamp}tok".encode(), "sha256").hexdigest()
        event = {
            "event": "failed",
            "severity": "permanent",
            "id": f"e{send_id}",
            "delivery-status": {"code": 550, "message": "5.1.1 unknown user"},
            "message": {"headers": {"message-id": f"{mint_send_token(Purpose.MESSAGE_ID, send_id)}@example.org"}},
        }
        body = {"signature": {"timestamp": timestamp, "token": "tok", "signature": signed}, "event-data": event}
        return client.post("/hooks/mailgun", json=body).status_code

    assert call(one, key="other") == 403
    assert call(one, at=1.0) == 403
    assert call(one) == 200
    assert call(second_id) == 200  # the same token with another body
    process_reports()
    assert (send_of(one).state, send_of(second_id).state) == (SendState.BOUNCED, SendState.SENT)


def test_postmark_needs_name_and_password(database: Engine, client: FlaskClient, frozen: FrozenClock) -> None:
    _, [send_id] = make_sends()
    configure_webhook(FeedbackSource.POSTMARK, "postmark:a-long-password")
    event = {
        "RecordType": "Bounce",
        "Type": "HardBounce",
        "ID": 7,
        "Email": "a@b.example",
        "Details": "550 5.1.1 unknown",
        "Content": f"Return-Path: <{envelope_sender(send_id)}>",
    }
    for auth, status in ((None, 403), (("postmark", "wrong"), 403), (("postmark", "a-long-password"), 200)):
        assert client.post("/hooks/postmark", json=event, auth=auth).status_code == status
    process_reports()
    assert send_of(send_id).state is SendState.BOUNCED


def test_brevo_sends_one_event_or_a_list(database: Engine, client: FlaskClient, frozen: FrozenClock) -> None:
    _, sent = make_sends(3)
    one, second_id, third_id = sent
    configure_webhook(FeedbackSource.BREVO, "brevo:a-long-password")

    def event(send_id: int, kind: str, reason: str = "") -> dict[str, Any]:
        token = mint_send_token(Purpose.MESSAGE_ID, send_id)
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

    several = [event(second_id, "hard_bounce", "550 5.7.1 not you"), event(third_id, "opened"), "junk"]
    for body in (event(one, "hard_bounce", "550 5.1.1 unknown"), several[:2], event(third_id, "spam")):
        assert client.post("/hooks/brevo", json=body).status_code == 403
        assert client.post("/hooks/brevo", json=body, auth=("brevo", "a-long-password")).status_code == 200
    assert client.post("/hooks/brevo", json=several, auth=("brevo", "a-long-password")).status_code == 200
    process_reports()
    assert send_of(one).state is SendState.BOUNCED
    assert (send_of(second_id).state, send_of(second_id).reason) == (SendState.BOUNCED, "policy")
    assert send_of(third_id).state is SendState.SENT
    assert send_of(third_id).complained_at is not None


def test_unconfigured_webhooks_are_not_found(database: Engine, client: FlaskClient) -> None:
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
    configure_webhook(FeedbackSource.SES, topics=ARN)
    configure_webhook(FeedbackSource.MAILGUN, "key-of-mailgun")
    for name in ("ses", "mailgun"):
        assert client.post(f"/hooks/{name}", json=junk()).status_code == 403
