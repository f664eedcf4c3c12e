"""Providers that call us: each file checks its provider's calls, and reads what they say.

``check(call, keys)`` raises Refused unless the call is the provider's own, and returns what makes it
the same call when it comes again. ``read(raw)`` says what a kept call tells, and never raises.
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
LARGEST = 2 * 1024 * 1024
"""Octets of one call: SendGrid's largest is 768 KB, SNS's 256 KB."""


def notices_of(way: FeedbackSource, raw: bytes) -> Sequence[ParsedBounce]:
    """What a kept call says. Never raises."""
    try:
        found: Sequence[ParsedBounce] = PROVIDERS[way].read(raw)
    except (ValueError, TypeError, AttributeError, KeyError, RecursionError):  # Not as its provider documents it.
        return [ParsedBounce(FeedbackType.UNREADABLE)]
    return found
