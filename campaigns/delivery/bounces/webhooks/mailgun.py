"""Mailgun webhook: HMAC-SHA256 over a timestamp and a single-use token."""

import hmac
import json

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
    parse_json,
)

_MAX_AGE = 12 * 3600
"""Seconds. Mailgun retries for eight hours."""


def check(request: WebhookRequest, secrets: WebhookSecrets) -> str:
    """Authenticate the call and return its key. Raises WebhookRejected.

    The key is the token alone, since the signature does not cover the body.
    """
    message = parse_json(request.body)
    signed = message.get("signature") if isinstance(message, dict) else None
    if not isinstance(signed, dict) or not secrets.secret:
        raise WebhookRejected("not signed")
    at, token = as_text(signed.get("timestamp")), as_text(signed.get("token"))
    expected = hmac.new(secrets.secret.encode(), f"{at}{token}".encode("utf-8", "replace"), "sha256").hexdigest()
    if not token or not hmac.compare_digest(
        expected.encode(), as_text(signed.get("signature")).encode("utf-8", "replace")
    ):
        raise WebhookRejected("the signature does not hold")
    if not at.isascii() or not at.isdigit() or abs(clock.now().timestamp() - int(at[:12])) > _MAX_AGE:
        raise WebhookRejected("too old")
    return digest("mailgun", token)


def read(raw: bytes) -> list[ParsedBounce]:
    event = json.loads(raw)["event-data"]
    delivery_status = event.get("delivery-status", {})
    diagnostic = (
        as_text(delivery_status.get("message"))
        or as_text(delivery_status.get("description"))
        or as_text(event.get("reason"))
    )
    bounce_class = classify(
        as_text(delivery_status.get("enhanced-code")), f"{as_text(delivery_status.get('code'))} {diagnostic}"
    )
    feedback_type = {
        "failed": bounce_class.feedback_type if event.get("severity") == "permanent" else FeedbackType.DELAYED,
        "complained": FeedbackType.COMPLAINT,
    }.get(as_text(event.get("event")), FeedbackType.DELIVERED)
    headers = event.get("message", {}).get("headers", {})
    token_text = (
        f"<{as_text(headers.get('message-id')).strip('<>')}>\n{as_text(event.get('envelope', {}).get('sender'))}"
    )
    recipient = as_text(event.get("recipient"))
    return [
        build_notice(
            feedback_type,
            as_text(event.get("id")),
            token_text,
            status=bounce_class.status,
            diagnostic=diagnostic,
            recipient=recipient,
        )
    ]
