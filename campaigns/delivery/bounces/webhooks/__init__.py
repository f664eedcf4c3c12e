"""Providers that call us: each file checks its provider's calls, and reads what they say.

``check(call, keys)`` raises Refused unless the call is the provider's own, and returns what makes it
the same call when it comes again. ``read(raw)`` says what a kept call tells, and never raises.
"""

from collections.abc import Mapping, Sequence
from types import ModuleType

from campaigns.delivery.bounces.models import Finding, Way
from campaigns.delivery.bounces.reading import Notice
from campaigns.delivery.bounces.webhooks import brevo, mailgun, postmark, sendgrid, ses

PROVIDERS: Mapping[Way, ModuleType] = {
    Way.SES: ses,
    Way.SENDGRID: sendgrid,
    Way.MAILGUN: mailgun,
    Way.POSTMARK: postmark,
    Way.BREVO: brevo,
}
LARGEST = 2 * 1024 * 1024
"""Octets of one call: SendGrid's largest is 768 KB, SNS's 256 KB."""


def notices_of(way: Way, raw: bytes) -> Sequence[Notice]:
    """What a kept call says. Never raises."""
    try:
        found: Sequence[Notice] = PROVIDERS[way].read(raw)
    except (ValueError, TypeError, AttributeError, KeyError, RecursionError):  # Not as its provider documents it.
        return [Notice(Finding.UNREADABLE)]
    return found
