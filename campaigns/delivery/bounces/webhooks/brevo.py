"""Brevo webhook: HTTP Basic authentication, since Brevo does not sign; one event or a list of events.

Format: developers.brevo.com/docs/transactional-webhooks. Of its time fields only ``ts_epoch`` (milliseconds) is
certain to be UTC; times are used only to distinguish two events of one mail.
"""

import json
from typing import Any

from campaigns.delivery.bounces.models import FeedbackType
from campaigns.delivery.bounces.parsing.classification import classify
from campaigns.delivery.bounces.parsing.parser import ParsedBounce
from campaigns.delivery.bounces.webhooks.provider import (
    WebhookRequest,
    WebhookSecrets,
    as_text,
    build_notice,
    check_password,
    digest,
    parse_json,
)

_MAX_EVENTS = 5_000
_FEEDBACK_TYPES = {
    "hard_bounce": FeedbackType.HARD,
    "invalid_email": FeedbackType.HARD,
    "soft_bounce": FeedbackType.SOFT,
    "blocked": FeedbackType.POLICY,
    "error": FeedbackType.POLICY,
    "spam": FeedbackType.COMPLAINT,
    "deferred": FeedbackType.DELAYED,
}


def check(request: WebhookRequest, secrets: WebhookSecrets) -> str:
    """Authenticate the call and return its key. Raises WebhookRejected."""
    check_password(request, secrets)
    parse_json(request.body)
    return digest("brevo", request.body)


def read(raw: bytes) -> list[ParsedBounce]:
    payload = json.loads(raw)
    return [_notice(event) for event in (payload if isinstance(payload, list) else [payload])[:_MAX_EVENTS]]


def _notice(event: dict[str, Any]) -> ParsedBounce:
    kind, diagnostic, message = (
        as_text(event.get("event")),
        as_text(event.get("reason")),
        as_text(event.get("message-id")),
    )
    bounce_class, feedback_type = classify("", diagnostic), _FEEDBACK_TYPES.get(kind, FeedbackType.DELIVERED)
    if feedback_type is FeedbackType.HARD and bounce_class.feedback_type is FeedbackType.POLICY:
        feedback_type = FeedbackType.POLICY
    # "id" identifies the webhook, not the event.
    key = f"{message} {kind} {as_text(event.get('ts_epoch') or event.get('ts_event'))} {as_text(event.get('email'))}"
    token_text = f"<{message.strip('<>')}>\n{as_text(event.get('X-Mailin-custom'))}"
    return build_notice(
        feedback_type,
        key,
        token_text,
        status=bounce_class.status,
        diagnostic=diagnostic,
        recipient=as_text(event.get("email")),
    )
