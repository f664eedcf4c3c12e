"""SendGrid event webhook: ECDSA signature over the timestamp and the raw body."""

import base64
import json
from typing import TYPE_CHECKING, Any

from campaigns import clock
from campaigns.delivery.bounces.models import FeedbackType
from campaigns.delivery.bounces.parsing.classification import classify
from campaigns.delivery.bounces.parsing.parser import ParsedBounce
from campaigns.delivery.bounces.webhooks.provider import (
    WebhookRejected,
    WebhookRequest,
    WebhookSecrets,
    as_text,
    build_notice,
    digest,
)

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric import ec

_SIGNATURE = "x-twilio-email-event-webhook-signature"
_TIMESTAMP = "x-twilio-email-event-webhook-timestamp"
_MAX_AGE = 36 * 3600
"""Seconds. SendGrid retries for a day."""
_MAX_CLOCK_SKEW = 600


def parse_public_key(text: str) -> "ec.EllipticCurvePublicKey":
    """Parse the verification key as SendGrid displays it. Raises ValueError."""
    from cryptography.hazmat.primitives.asymmetric import ec  # imported here, so that workers do not load it
    from cryptography.hazmat.primitives.serialization import load_der_public_key

    key = load_der_public_key(base64.b64decode(text, validate=True))
    if not isinstance(key, ec.EllipticCurvePublicKey):
        raise ValueError("not an elliptic curve's key")
    return key


def check(request: WebhookRequest, secrets: WebhookSecrets) -> str:
    """Authenticate the call and return its key. Raises WebhookRejected."""
    from cryptography.exceptions import InvalidSignature
    from cryptography.hazmat.primitives import hashes
    from cryptography.hazmat.primitives.asymmetric import ec

    timestamp = request.header(_TIMESTAMP)
    try:
        signature = base64.b64decode(request.header(_SIGNATURE), validate=True)
        parse_public_key(secrets.secret).verify(signature, timestamp.encode() + request.body, ec.ECDSA(hashes.SHA256()))
    except (InvalidSignature, ValueError) as error:
        raise WebhookRejected("the signature does not hold") from error
    age = (
        clock.now().timestamp() - int(timestamp)
        if timestamp.isascii() and timestamp.isdigit() and len(timestamp) < 12
        else _MAX_AGE + 1
    )
    if not -_MAX_CLOCK_SKEW <= age <= _MAX_AGE:
        raise WebhookRejected("too old")
    return digest("sendgrid", request.body)


def read(raw: bytes) -> list[ParsedBounce]:
    return [_notice(event) for event in json.loads(raw)[:5000]]


def _notice(event: dict[str, Any]) -> ParsedBounce:
    kind = event.get("event")
    diagnostic, status = as_text(event.get("reason")) or as_text(event.get("response")), as_text(event.get("status"))
    bounce_class = classify(status, diagnostic)
    feedback_type = {
        "bounce": FeedbackType.SOFT
        if event.get("type") == "blocked" and bounce_class.feedback_type is FeedbackType.HARD
        else bounce_class.feedback_type,
        "dropped": FeedbackType.HARD
        if diagnostic == "Invalid"
        else FeedbackType.SOFT
        if diagnostic == "Bounced Address"
        else FeedbackType.POLICY,
        "spamreport": FeedbackType.COMPLAINT,
        "deferred": FeedbackType.DELAYED,
    }.get(as_text(kind), FeedbackType.DELIVERED)
    key = as_text(event.get("sg_event_id"))
    token_text = as_text(event.get("smtp-id"))
    return build_notice(
        feedback_type,
        key,
        token_text,
        status=bounce_class.status,
        diagnostic=diagnostic,
        recipient=as_text(event.get("email")),
    )
