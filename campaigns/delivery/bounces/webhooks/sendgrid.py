"""SendGrid event webhook: ECDSA signature over the timestamp and the raw body."""

import base64
import json
from typing import TYPE_CHECKING, Any

from campaigns import clock
from campaigns.delivery.bounces.models import FeedbackType
from campaigns.delivery.bounces.parsing.classification import judge
from campaigns.delivery.bounces.parsing.parser import ParsedBounce
from campaigns.delivery.bounces.webhooks.common import (
    WebhookRejected,
    WebhookRequest,
    WebhookSecrets,
    digest,
    notice,
    words,
)

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric import ec

_SIGNATURE = "x-twilio-email-event-webhook-signature"
_TIMESTAMP = "x-twilio-email-event-webhook-timestamp"
_OLDEST = 36 * 3600
"""Seconds. SendGrid retries for a day."""
_AHEAD = 600


def key_of(text: str) -> "ec.EllipticCurvePublicKey":
    """Parse the verification key as SendGrid displays it. Raises ValueError."""
    from cryptography.hazmat.primitives.asymmetric import ec  # imported here, so that workers do not load it
    from cryptography.hazmat.primitives.serialization import load_der_public_key

    key = load_der_public_key(base64.b64decode(text, validate=True))
    if not isinstance(key, ec.EllipticCurvePublicKey):
        raise ValueError("not an elliptic curve's key")
    return key


def check(call: WebhookRequest, keys: WebhookSecrets) -> str:
    """Authenticate the call and return its key. Raises WebhookRejected."""
    from cryptography.exceptions import InvalidSignature
    from cryptography.hazmat.primitives import hashes
    from cryptography.hazmat.primitives.asymmetric import ec

    told = call.header(_TIMESTAMP)
    try:
        signature = base64.b64decode(call.header(_SIGNATURE), validate=True)
        key_of(keys.secret).verify(signature, told.encode() + call.body, ec.ECDSA(hashes.SHA256()))
    except (InvalidSignature, ValueError) as error:
        raise WebhookRejected("the signature does not hold") from error
    age = clock.now().timestamp() - int(told) if told.isascii() and told.isdigit() and len(told) < 12 else _OLDEST + 1
    if not -_AHEAD <= age <= _OLDEST:
        raise WebhookRejected("too old")
    return digest("sendgrid", call.body)


def read(raw: bytes) -> list[ParsedBounce]:
    return [_notice(event) for event in json.loads(raw)[:5000]]


def _notice(event: dict[str, Any]) -> ParsedBounce:
    kind = event.get("event")
    said, status = words(event.get("reason")) or words(event.get("response")), words(event.get("status"))
    verdict = judge(status, said)
    finding = {
        "bounce": FeedbackType.SOFT
        if event.get("type") == "blocked" and verdict.finding is FeedbackType.HARD
        else verdict.finding,
        "dropped": FeedbackType.HARD
        if said == "Invalid"
        else FeedbackType.SOFT
        if said == "Bounced Address"
        else FeedbackType.POLICY,
        "spamreport": FeedbackType.COMPLAINT,
        "deferred": FeedbackType.DELAYED,
    }.get(words(kind), FeedbackType.DELIVERED)
    key = words(event.get("sg_event_id"))
    proving = words(event.get("smtp-id"))
    return notice(finding, key, proving, status=verdict.status, said=said, to=words(event.get("email")))
