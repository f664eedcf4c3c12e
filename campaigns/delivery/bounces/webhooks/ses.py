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
from campaigns.errors import TemporaryError
from campaigns.i18n import N_

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric import rsa

ARN = re.compile(r"arn:aws(?:-[a-z]+)*:sns:[a-z0-9-]{1,30}:\d{12}:[A-Za-z0-9_.-]{1,256}")
_HOST = re.compile(r"sns\.[a-z]{2}(?:-[a-z]+)+-\d\.amazonaws\.com(?:\.cn)?")
_SIGNED_FIELDS = {
    "Notification": ("Message", "MessageId", "Subject", "Timestamp", "TopicArn", "Type"),
    "SubscriptionConfirmation": ("Message", "MessageId", "SubscribeURL", "Timestamp", "Token", "TopicArn", "Type"),
    "UnsubscribeConfirmation": ("Message", "MessageId", "SubscribeURL", "Timestamp", "Token", "TopicArn", "Type"),
}
_TIMEOUT_SECONDS = 5.0
_MAX_CERTIFICATE_BYTES = 20_000
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
    with urllib.request.build_opener(_NoRedirect).open(url, timeout=_TIMEOUT_SECONDS) as response:
        body: bytes = response.read(_MAX_CERTIFICATE_BYTES)
    return body


Fetch = Callable[[str], bytes]
fetcher: Fetch = fetch
"""Replaced by tests, which may not use the network."""


def check(request: WebhookRequest, secrets: WebhookSecrets) -> str:
    """Authenticate the call and return its key.

    Raises WebhookRejected, or TemporaryError when Amazon's certificate cannot be fetched.
    """
    message = parse_json(request.body)
    message_type = as_text(message.get("Type")) if isinstance(message, dict) else ""
    if message_type not in _SIGNED_FIELDS:
        raise WebhookRejected("not a message of SNS")
    if as_text(message.get("TopicArn")) not in secrets.topics:
        raise WebhookRejected("a topic that nobody allowed")
    if message.get("SignatureVersion") != "2":
        raise WebhookRejected("signature version 1 rests on SHA-1; choose version 2 for the topic")
    _verify(message, _SIGNED_FIELDS[message_type])
    return digest("sns", as_text(message.get("MessageId")))


def _verify(message: dict[str, Any], signed_fields: tuple[str, ...]) -> None:
    from cryptography.exceptions import InvalidSignature  # imported here, so that workers do not load it
    from cryptography.hazmat.primitives import hashes
    from cryptography.hazmat.primitives.asymmetric import padding

    url = as_text(message.get("SigningCertURL"))
    if not is_sns_url(url) or not urlsplit(url).path.endswith(".pem"):
        raise WebhookRejected("a certificate from elsewhere")
    text = "".join(f"{name}\n{as_text(message[name])}\n" for name in signed_fields if message.get(name) is not None)
    try:
        signature = base64.b64decode(as_text(message.get("Signature")), validate=True)
        _load_public_key(url).verify(signature, text.encode(), padding.PKCS1v15(), hashes.SHA256())
    except (InvalidSignature, ValueError) as error:
        raise WebhookRejected("the signature does not hold") from error


def is_sns_url(url: str) -> bool:
    """Return whether the URL is HTTPS on an SNS host of Amazon."""
    try:
        parts = urlsplit(url)
        is_https = parts.scheme == "https" and parts.port in (None, 443) and parts.username is None
    except ValueError:
        return False
    return is_https and _HOST.fullmatch(parts.hostname or "") is not None


def _load_public_key(url: str) -> "rsa.RSAPublicKey":
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
def _certificate(url: str, fetch_url: Fetch) -> bytes:
    return fetch_url(url)


def pending_subscription(body: bytes) -> tuple[str, str] | None:
    """Return (TopicArn, SubscribeURL) of a SubscriptionConfirmation, or None for other messages."""
    message = json.loads(body)
    if message.get("Type") != "SubscriptionConfirmation":
        return None
    return as_text(message.get("TopicArn")), as_text(message.get("SubscribeURL"))


def confirm_subscription(arn: str, url: str) -> None:
    """Confirm an SNS subscription. Raises WebhookRejected unless the URL confirms this topic at Amazon, and OSError."""
    query = parse_qs(urlsplit(url).query)
    if not is_sns_url(url) or query.get("Action") != ["ConfirmSubscription"] or query.get("TopicArn") != [arn]:
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
    header_lines = [f"{each['name']}: {each['value']}" for each in mail.get("headers", ())]
    token_text = "\n".join([as_text(mail.get("source")), *header_lines])
    if kind == "Bounce":
        return _bounces(event["bounce"], token_text)
    if kind == "DeliveryDelay":
        return [ParsedBounce(FeedbackType.DELAYED)]
    complaint = event["complaint"]
    key, recipient = as_text(complaint.get("feedbackId")), as_text(complaint["complainedRecipients"][0]["emailAddress"])
    feedback = as_text(complaint.get("complaintFeedbackType")) or "abuse"
    feedback_type = FeedbackType.DELIVERED if feedback == "not-spam" else FeedbackType.COMPLAINT
    return [build_notice(feedback_type, key, token_text, diagnostic=feedback, recipient=recipient)]


def _bounces(bounce: dict[str, Any], token_text: str) -> list[ParsedBounce]:
    notices = []
    for recipient in bounce["bouncedRecipients"][:5]:
        diagnostic = as_text(recipient.get("diagnosticCode")).removeprefix("smtp; ")
        bounce_class = classify(as_text(recipient.get("status")), diagnostic)
        feedback_type = bounce_class.feedback_type
        if bounce.get("bounceType") != "Permanent" and feedback_type is FeedbackType.HARD:
            feedback_type = FeedbackType.SOFT
        elif bounce.get("bounceSubType") == "NoEmail" or (
            bounce.get("bounceType") == "Permanent" and not diagnostic and not bounce_class.status
        ):
            feedback_type = FeedbackType.HARD
        address = as_text(recipient.get("emailAddress"))
        notices.append(
            build_notice(
                feedback_type,
                as_text(bounce.get("feedbackId")),
                token_text,
                status=bounce_class.status,
                diagnostic=diagnostic,
                recipient=address,
            )
        )
    return notices
