"""Postmark webhook: HTTP Basic authentication, since Postmark does not sign."""

import json

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

_HARD_TYPES = frozenset({"HardBounce", "BadEmailAddress"})
_POLICY_TYPES = frozenset({"SpamNotification", "Blocked", "DMARCPolicy", "VirusNotification", "SMTPApiError"})
_IGNORED_TYPES = frozenset(
    {"AutoResponder", "AddressChange", "ChallengeVerification", "Subscribe", "Unsubscribe", "OpenRelayTest"}
)


def check(request: WebhookRequest, secrets: WebhookSecrets) -> str:
    """Authenticate the call and return its key. Raises WebhookRejected."""
    check_password(request, secrets)
    parse_json(request.body)
    return digest("postmark", request.body)


def read(raw: bytes) -> list[ParsedBounce]:
    event = json.loads(raw)
    kind, diagnostic = as_text(event.get("Type")), as_text(event.get("Details")) or as_text(event.get("Description"))
    bounce_class = classify("", diagnostic)
    if event.get("RecordType") == "SpamComplaint" or kind == "SpamComplaint":
        feedback_type = FeedbackType.COMPLAINT
    elif event.get("RecordType") != "Bounce" or kind in _IGNORED_TYPES:
        feedback_type = FeedbackType.DELIVERED
    elif kind in _POLICY_TYPES:
        feedback_type = FeedbackType.POLICY
    elif kind in _HARD_TYPES:
        feedback_type = FeedbackType.POLICY if bounce_class.feedback_type is FeedbackType.POLICY else FeedbackType.HARD
    else:
        feedback_type = FeedbackType.SOFT
    token_text = as_text(event.get("Content")) + json.dumps(event.get("Metadata", {}))
    recipient = as_text(event.get("Email"))
    return [
        build_notice(
            feedback_type,
            as_text(event.get("ID")),
            token_text,
            status=bounce_class.status,
            diagnostic=diagnostic,
            recipient=recipient,
        )
    ]
