"""What calls of all providers have in common."""

import base64
import hmac
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from hashlib import blake2b
from typing import Any

from campaigns.delivery.bounces.models import RECORDED, FeedbackType
from campaigns.delivery.bounces.parsing import send_tokens
from campaigns.delivery.bounces.parsing.parser import ParsedBounce
from campaigns.delivery.smtp.replies import printable


class WebhookRejected(Exception):
    """The call is not the provider's, or comes from a source that nobody allowed."""


@dataclass(frozen=True, slots=True)
class WebhookRequest:
    """One POST: header names in lower case, and the body as it came."""

    headers: Mapping[str, str]
    body: bytes

    def header(self, name: str) -> str:
        return self.headers.get(name, "")


@dataclass(frozen=True, slots=True)
class WebhookSecrets:
    """What a provider's calls are checked with."""

    secret: str = ""
    topics: frozenset[str] = field(default_factory=frozenset)


def check_password(call: WebhookRequest, keys: WebhookSecrets) -> None:
    """For a provider that signs nothing: HTTP's own name and password. Raises Refused."""
    kind, _, told = call.header("authorization").partition(" ")
    try:
        given = base64.b64decode(told.strip(), validate=True)
    except ValueError as error:
        raise WebhookRejected("no name and password") from error
    if kind.lower() != "basic" or not keys.secret or not hmac.compare_digest(given, keys.secret.encode()):
        raise WebhookRejected("another name or password")


def loaded(body: bytes) -> Any:
    """The JSON of a call. Raises Refused."""
    try:
        return json.loads(body)
    except (ValueError, RecursionError) as error:
        raise WebhookRejected("not JSON") from error


def digest(*parts: str | bytes) -> str:
    hashed = blake2b(digest_size=24)
    for part in parts:
        hashed.update(part if isinstance(part, bytes) else part.encode("utf-8", "replace"))
        hashed.update(b"\0")
    return hashed.hexdigest()


def notice(
    finding: FeedbackType, key: str, proving: str, *, status: str = "", said: str = "", to: str = ""
) -> ParsedBounce:
    """An event; whose it is stands in ``proving``, words of the provider that hold a token of ours."""
    send_id, forged = send_tokens.send_of(send_tokens.tokens_in(proving))
    if send_id is None and finding in RECORDED:
        finding = FeedbackType.FORGED if forged else FeedbackType.FOREIGN
    return ParsedBounce(finding, send_id, digest(key), status[:20], printable(said[:2000]), to.lower()[:254])


def words(value: Any) -> str:
    """A JSON value as text; nothing for what isn't there."""
    return value if isinstance(value, str) else "" if value is None else str(value)
