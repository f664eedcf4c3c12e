"""Parts shared by the providers' webhooks: request, secrets, authentication and notices."""

import base64
import hmac
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from hashlib import blake2b
from typing import Any

from campaigns.delivery.bounces.models import RECORDED_TYPES, FeedbackType
from campaigns.delivery.bounces.parsing import send_tokens
from campaigns.delivery.bounces.parsing.parser import ParsedBounce
from campaigns.delivery.smtp.replies import printable_line


class WebhookRejected(Exception):
    """The call is not authentic, or its topic is not allowed."""


@dataclass(frozen=True, slots=True)
class WebhookRequest:
    """One POST: header names in lower case, and the raw body."""

    headers: Mapping[str, str]
    body: bytes

    def header(self, name: str) -> str:
        return self.headers.get(name, "")


@dataclass(frozen=True, slots=True)
class WebhookSecrets:
    """Secrets that authenticate a provider's calls; ``topics`` are SES's allowed TopicArns."""

    secret: str = ""
    topics: frozenset[str] = field(default_factory=frozenset)


def check_password(request: WebhookRequest, secrets: WebhookSecrets) -> None:
    """Check HTTP Basic authentication, for providers that do not sign. Raises WebhookRejected."""
    kind, _, credentials = request.header("authorization").partition(" ")
    try:
        given = base64.b64decode(credentials.strip(), validate=True)
    except ValueError as error:
        raise WebhookRejected("no name and password") from error
    if kind.lower() != "basic" or not secrets.secret or not hmac.compare_digest(given, secrets.secret.encode()):
        raise WebhookRejected("another name or password")


def parse_json(body: bytes) -> Any:
    """Parse the JSON body. Raises WebhookRejected."""
    try:
        return json.loads(body)
    except (ValueError, RecursionError) as error:
        raise WebhookRejected("not JSON") from error


def digest(*parts: str | bytes) -> str:
    hasher = blake2b(digest_size=24)
    for part in parts:
        hasher.update(part if isinstance(part, bytes) else part.encode("utf-8", "replace"))
        hasher.update(b"\0")
    return hasher.hexdigest()


def build_notice(
    feedback_type: FeedbackType,
    key: str,
    token_text: str,
    *,
    status: str = "",
    diagnostic: str = "",
    recipient: str = "",
) -> ParsedBounce:
    """Build the notice of one event.

    :param key: identifies the event; hashed.
    :param token_text: text of the provider in which the signed token of the send is searched.
    """
    send_id, forged = send_tokens.verified_send(send_tokens.token_candidates(token_text))
    if send_id is None and feedback_type in RECORDED_TYPES:
        feedback_type = FeedbackType.FORGED if forged else FeedbackType.FOREIGN
    return ParsedBounce(
        feedback_type, send_id, digest(key), status[:20], printable_line(diagnostic[:2000]), recipient.lower()[:254]
    )


def as_text(value: Any) -> str:
    """Return a JSON value as text; ``""`` for null or a missing value."""
    return value if isinstance(value, str) else "" if value is None else str(value)
