"""Brevo webhook: HTTP Basic authentication, since Brevo does not sign; one event or a list of events.

Format: developers.brevo.com/docs/transactional-webhooks. Of its time fields only ``ts_epoch`` (milliseconds) is
certain to be UTC; times are used only to distinguish two events of one mail.
"""

import json
from typing import Any

from campaigns.delivery.bounces.models import FeedbackType
from campaigns.delivery.bounces.parsing.classification import judge
from campaigns.delivery.bounces.parsing.parser import ParsedBounce
from campaigns.delivery.bounces.webhooks.common import (
    WebhookRequest,
    WebhookSecrets,
    check_password,
    digest,
    loaded,
    notice,
    words,
)

_MOST = 5_000
_FINDINGS = {
    "hard_bounce": FeedbackType.HARD,
    "invalid_email": FeedbackType.HARD,
    "soft_bounce": FeedbackType.SOFT,
    "blocked": FeedbackType.POLICY,
    "error": FeedbackType.POLICY,
    "spam": FeedbackType.COMPLAINT,
    "deferred": FeedbackType.DELAYED,
}


def check(call: WebhookRequest, keys: WebhookSecrets) -> str:
    """Authenticate the call and return its key. Raises WebhookRejected."""
    check_password(call, keys)
    loaded(call.body)
    return digest("brevo", call.body)


def read(raw: bytes) -> list[ParsedBounce]:
    told = json.loads(raw)
    return [_notice(event) for event in (told if isinstance(told, list) else [told])[:_MOST]]


def _notice(event: dict[str, Any]) -> ParsedBounce:
    kind, said, message = words(event.get("event")), words(event.get("reason")), words(event.get("message-id"))
    verdict, finding = judge("", said), _FINDINGS.get(kind, FeedbackType.DELIVERED)
    if finding is FeedbackType.HARD and verdict.finding is FeedbackType.POLICY:
        finding = FeedbackType.POLICY
    # "id" identifies the webhook, not the event.
    key = f"{message} {kind} {words(event.get('ts_epoch') or event.get('ts_event'))} {words(event.get('email'))}"
    proving = f"<{message.strip('<>')}>\n{words(event.get('X-Mailin-custom'))}"
    return notice(finding, key, proving, status=verdict.status, said=said, to=words(event.get("email")))
