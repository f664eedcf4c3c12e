"""Postmark webhook: HTTP Basic authentication, since Postmark does not sign."""

import json

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

_HARD = frozenset({"HardBounce", "BadEmailAddress"})
_POLICY = frozenset({"SpamNotification", "Blocked", "DMARCPolicy", "VirusNotification", "SMTPApiError"})
_SILENT = frozenset(
    {"AutoResponder", "AddressChange", "ChallengeVerification", "Subscribe", "Unsubscribe", "OpenRelayTest"}
)


def check(call: WebhookRequest, keys: WebhookSecrets) -> str:
    """Authenticate the call and return its key. Raises WebhookRejected."""
    check_password(call, keys)
    loaded(call.body)
    return digest("postmark", call.body)


def read(raw: bytes) -> list[ParsedBounce]:
    event = json.loads(raw)
    kind, said = words(event.get("Type")), words(event.get("Details")) or words(event.get("Description"))
    verdict = judge("", said)
    if event.get("RecordType") == "SpamComplaint" or kind == "SpamComplaint":
        finding = FeedbackType.COMPLAINT
    elif event.get("RecordType") != "Bounce" or kind in _SILENT:
        finding = FeedbackType.DELIVERED
    elif kind in _POLICY:
        finding = FeedbackType.POLICY
    elif kind in _HARD:
        finding = FeedbackType.POLICY if verdict.finding is FeedbackType.POLICY else FeedbackType.HARD
    else:
        finding = FeedbackType.SOFT
    proving = words(event.get("Content")) + json.dumps(event.get("Metadata", {}))
    to = words(event.get("Email"))
    return [notice(finding, words(event.get("ID")), proving, status=verdict.status, said=said, to=to)]
