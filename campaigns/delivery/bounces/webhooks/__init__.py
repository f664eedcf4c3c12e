"""Webhooks of mail providers, one module per provider.

``check(request, secrets)`` raises WebhookRejected unless the call is authentic, and returns a key that is the same when
the provider repeats the call. ``read(raw)`` parses a stored call into notices.
"""

from collections.abc import Mapping, Sequence
from types import ModuleType

from campaigns.delivery.bounces.models import FeedbackSource, FeedbackType
from campaigns.delivery.bounces.parsing.parser import ParsedBounce
from campaigns.delivery.bounces.webhooks import brevo, mailgun, postmark, sendgrid, ses

PROVIDERS: Mapping[FeedbackSource, ModuleType] = {
    FeedbackSource.SES: ses,
    FeedbackSource.SENDGRID: sendgrid,
    FeedbackSource.MAILGUN: mailgun,
    FeedbackSource.POSTMARK: postmark,
    FeedbackSource.BREVO: brevo,
}
MAX_BODY_BYTES = 2 * 1024 * 1024
"""Maximum bytes of a call: SendGrid's limit is 768 KB, that of SNS 256 KB."""


def read_notices(source: FeedbackSource, raw: bytes) -> Sequence[ParsedBounce]:
    """Parse a stored call of that provider; never raises."""
    try:
        notices: Sequence[ParsedBounce] = PROVIDERS[source].read(raw)
    except (ValueError, TypeError, AttributeError, KeyError, RecursionError):  # malformed call
        return [ParsedBounce(FeedbackType.UNREADABLE)]
    return notices
