"""Mailgun webhook: HMAC-SHA256 over a timestamp and a single-use token."""

import hmac
import json

from campaigns import clock
from campaigns.delivery.bounces.models import FeedbackType
from campaigns.delivery.bounces.parsing.classification import judge
from campaigns.delivery.bounces.parsing.parser import ParsedBounce
from campaigns.delivery.bounces.webhooks.common import (
    WebhookRejected,
    WebhookRequest,
    WebhookSecrets,
    digest,
    loaded,
    notice,
    words,
)

_OLDEST = 12 * 3600
"""Seconds. Mailgun retries for eight hours."""


def check(call: WebhookRequest, keys: WebhookSecrets) -> str:
    """Authenticate the call and return its key. Raises WebhookRejected.

    The key is the token alone, since the signature does not cover the body.
    """
    message = loaded(call.body)
    signed = message.get("signature") if isinstance(message, dict) else None
    if not isinstance(signed, dict) or not keys.secret:
        raise WebhookRejected("not signed")
    at, token = words(signed.get("timestamp")), words(signed.get("token"))
    right = hmac.new(keys.secret.encode(), f"{at}{token}".encode("utf-8", "replace"), "sha256").hexdigest()
    if not token or not hmac.compare_digest(right.encode(), words(signed.get("signature")).encode("utf-8", "replace")):
        raise WebhookRejected("the signature does not hold")
    if not at.isascii() or not at.isdigit() or abs(clock.now().timestamp() - int(at[:12])) > _OLDEST:
        raise WebhookRejected("too old")
    return digest("mailgun", token)


def read(raw: bytes) -> list[ParsedBounce]:
    event = json.loads(raw)["event-data"]
    told = event.get("delivery-status", {})
    said = words(told.get("message")) or words(told.get("description")) or words(event.get("reason"))
    verdict = judge(words(told.get("enhanced-code")), f"{words(told.get('code'))} {said}")
    finding = {
        "failed": verdict.finding if event.get("severity") == "permanent" else FeedbackType.DELAYED,
        "complained": FeedbackType.COMPLAINT,
    }.get(words(event.get("event")), FeedbackType.DELIVERED)
    headers = event.get("message", {}).get("headers", {})
    proving = f"<{words(headers.get('message-id')).strip('<>')}>\n{words(event.get('envelope', {}).get('sender'))}"
    to = words(event.get("recipient"))
    return [notice(finding, words(event.get("id")), proving, status=verdict.status, said=said, to=to)]
