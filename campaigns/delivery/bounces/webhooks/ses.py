"""Amazon SES webhook through SNS: messages signed with Amazon's certificate (signature version 2)."""

import base64
import json
import re
import urllib.request
from collections.abc import Callable
from datetime import timedelta
from functools import lru_cache
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs, urlsplit

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
from campaigns.errors import TemporaryError
from campaigns.i18n import N_

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric import rsa

ARN = re.compile(r"arn:aws(?:-[a-z]+)*:sns:[a-z0-9-]{1,30}:\d{12}:[A-Za-z0-9_.-]{1,256}")
_HOST = re.compile(r"sns\.[a-z]{2}(?:-[a-z]+)+-\d\.amazonaws\.com(?:\.cn)?")
_SIGNED = {
    "Notification": ("Message", "MessageId", "Subject", "Timestamp", "TopicArn", "Type"),
    "SubscriptionConfirmation": ("Message", "MessageId", "SubscribeURL", "Timestamp", "Token", "TopicArn", "Type"),
    "UnsubscribeConfirmation": ("Message", "MessageId", "SubscribeURL", "Timestamp", "Token", "TopicArn", "Type"),
}
_SECONDS = 5.0
_LARGEST_CERTIFICATE = 20_000
_EVENTS = {
    "Bounce": FeedbackType.SOFT,
    "Complaint": FeedbackType.COMPLAINT,
    "DeliveryDelay": FeedbackType.DELAYED,
}


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *_: Any) -> None:
        return None


def fetch(url: str) -> bytes:
    """GET ``url`` without following redirects. Raises OSError."""
    with urllib.request.build_opener(_NoRedirect).open(url, timeout=_SECONDS) as answer:
        found: bytes = answer.read(_LARGEST_CERTIFICATE)
    return found


Fetch = Callable[[str], bytes]
fetcher: Fetch = fetch
"""Replaced by tests, which may not use the network."""


def check(call: WebhookRequest, keys: WebhookSecrets) -> str:
    """Authenticate the call and return its key.

    Raises WebhookRejected, or TemporaryError when Amazon's certificate cannot be fetched.
    """
    message = loaded(call.body)
    kind = words(message.get("Type")) if isinstance(message, dict) else ""
    if kind not in _SIGNED:
        raise WebhookRejected("not a message of SNS")
    if words(message.get("TopicArn")) not in keys.topics:
        raise WebhookRejected("a topic that nobody allowed")
    if message.get("SignatureVersion") != "2":
        raise WebhookRejected("signature version 1 rests on SHA-1; choose version 2 for the topic")
    _verify(message, _SIGNED[kind])
    return digest("sns", words(message.get("MessageId")))


def _verify(message: dict[str, Any], names: tuple[str, ...]) -> None:
    from cryptography.exceptions import InvalidSignature  # imported here, so that workers do not load it
    from cryptography.hazmat.primitives import hashes
    from cryptography.hazmat.primitives.asymmetric import padding

    url = words(message.get("SigningCertURL"))
    if not is_amazons(url) or not urlsplit(url).path.endswith(".pem"):
        raise WebhookRejected("a certificate from elsewhere")
    text = "".join(f"{name}\n{words(message[name])}\n" for name in names if message.get(name) is not None)
    try:
        signature = base64.b64decode(words(message.get("Signature")), validate=True)
        _key(url).verify(signature, text.encode(), padding.PKCS1v15(), hashes.SHA256())
    except (InvalidSignature, ValueError) as error:
        raise WebhookRejected("the signature does not hold") from error


def is_amazons(url: str) -> bool:
    """Return whether the URL is HTTPS on an SNS host of Amazon."""
    try:
        parts = urlsplit(url)
        plain = parts.scheme == "https" and parts.port in (None, 443) and parts.username is None
    except ValueError:
        return False
    return plain and _HOST.fullmatch(parts.hostname or "") is not None


def _key(url: str) -> "rsa.RSAPublicKey":
    from cryptography import x509
    from cryptography.hazmat.primitives.asymmetric import rsa

    try:
        certificate = x509.load_pem_x509_certificate(_certificate(url, fetcher))
    except OSError as error:
        raise TemporaryError(N_("Amazon's certificate cannot be fetched just now.")) from error
    key, now = certificate.public_key(), clock.now()
    if not certificate.not_valid_before_utc - timedelta(hours=1) <= now <= certificate.not_valid_after_utc:
        raise WebhookRejected("a certificate whose time is over")
    if not isinstance(key, rsa.RSAPublicKey):
        raise WebhookRejected("not an RSA key")
    return key


@lru_cache(8)
def _certificate(url: str, through: Fetch) -> bytes:
    return through(url)


def subscription(body: bytes) -> tuple[str, str] | None:
    """Return (TopicArn, SubscribeURL) of a SubscriptionConfirmation, or None for other messages."""
    message = json.loads(body)
    if message.get("Type") != "SubscriptionConfirmation":
        return None
    return words(message.get("TopicArn")), words(message.get("SubscribeURL"))


def confirm(arn: str, url: str) -> None:
    """Confirm an SNS subscription. Raises WebhookRejected unless the URL confirms this topic at Amazon, and OSError."""
    asked = parse_qs(urlsplit(url).query)
    if not is_amazons(url) or asked.get("Action") != ["ConfirmSubscription"] or asked.get("TopicArn") != [arn]:
        raise WebhookRejected("not an address that confirms this topic")
    fetcher(url)


def read(raw: bytes) -> list[ParsedBounce]:
    outer = json.loads(raw)
    if outer["Type"] != "Notification":
        return [ParsedBounce(FeedbackType.DELIVERED)]
    event = json.loads(outer["Message"])
    kind = event.get("notificationType") or event.get("eventType")
    if kind not in _EVENTS:
        return [ParsedBounce(FeedbackType.DELIVERED)]
    mail = event.get("mail", {})
    told = [f"{each['name']}: {each['value']}" for each in mail.get("headers", ())]
    proving = "\n".join([words(mail.get("source")), *told])
    if kind == "Bounce":
        return _bounces(event["bounce"], proving)
    if kind == "DeliveryDelay":
        return [ParsedBounce(FeedbackType.DELAYED)]
    about = event["complaint"]
    key, to = words(about.get("feedbackId")), words(about["complainedRecipients"][0]["emailAddress"])
    feedback = words(about.get("complaintFeedbackType")) or "abuse"
    finding = FeedbackType.DELIVERED if feedback == "not-spam" else FeedbackType.COMPLAINT
    return [notice(finding, key, proving, said=feedback, to=to)]


def _bounces(bounce: dict[str, Any], proving: str) -> list[ParsedBounce]:
    found = []
    for each in bounce["bouncedRecipients"][:5]:
        said = words(each.get("diagnosticCode")).removeprefix("smtp; ")
        verdict = judge(words(each.get("status")), said)
        finding = verdict.finding
        if bounce.get("bounceType") != "Permanent" and finding is FeedbackType.HARD:
            finding = FeedbackType.SOFT
        elif bounce.get("bounceSubType") == "NoEmail" or (
            bounce.get("bounceType") == "Permanent" and not said and not verdict.status
        ):
            finding = FeedbackType.HARD
        to = words(each.get("emailAddress"))
        found.append(notice(finding, words(bounce.get("feedbackId")), proving, status=verdict.status, said=said, to=to))
    return found
