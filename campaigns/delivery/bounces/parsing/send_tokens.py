"""Signed send tokens in inbound mails and webhook calls: they prove which send a report is about."""

import re
from collections.abc import Iterable, Iterator

from campaigns.delivery.mime import verp
from campaigns.errors import InvalidTokenError
from campaigns.tokens import Purpose, open_send_token

_MESSAGE_ID = re.compile(r"<([\w-]{28})@")
_UNSUBSCRIBE = re.compile(r"/u/([\w-]{28})\b")
Token = tuple[str, Purpose]


def token_candidates(text: str) -> Iterator[Token]:
    """Yield token candidates of the envelope, the Message-ID and the unsubscribe link, a few of each."""
    yield from ((token, Purpose.BOUNCE) for token in verp.find_tokens(text))
    yield from ((token, Purpose.MESSAGE_ID) for token in _MESSAGE_ID.findall(text)[:5])
    yield from ((token, Purpose.UNSUBSCRIBE) for token in _UNSUBSCRIBE.findall(text)[:5])


def verified_send(tokens: Iterable[Token]) -> tuple[int | None, bool]:
    """Return (send id of the first valid token or None, whether an envelope token was forged)."""
    forged = False
    for token, purpose in tokens:
        try:
            return verp.read_send_id(token) if purpose is Purpose.BOUNCE else open_send_token(purpose, token), False
        except InvalidTokenError:
            forged = forged or purpose is Purpose.BOUNCE
    return None, forged
