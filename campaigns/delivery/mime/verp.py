"""VERP envelope senders, which name the send: ``b+<token>@<bounce domain>``.

The token is written in hexadecimal, because some mail servers change the local part to lower case.
"""

import re
from base64 import urlsafe_b64encode
from binascii import a2b_base64

from campaigns.errors import InvalidTokenError
from campaigns.tokens import Purpose, mint_send_token, open_send_token

_URLSAFE_TO_STANDARD = bytes.maketrans(b"-_", b"+/")
_HEX_LENGTH = 42  # 21 bytes in hexadecimal; base64 would not survive a server that changes the case
_ADDRESS = re.compile(r"\bb(?:\+|=2b|%2b)([0-9a-f]{42}|[\w-]{28})@", re.I)
"""Matches hexadecimal tokens, and base64url tokens of mails sent by older versions."""


def sender_for_send(send_id: int, domain: str) -> str:
    """The envelope sender for a send's mail."""
    return sender_for_token(mint_send_token(Purpose.BOUNCE, send_id), domain)


def sender_for_token(token: str, domain: str) -> str:
    """The envelope sender for a base64url token of purpose *bounce*."""
    return f"b+{a2b_base64(token.encode().translate(_URLSAFE_TO_STANDARD)).hex()}@{domain}"


def find_tokens(text: str) -> list[str]:
    """Candidates for tokens in ``text``, in order, at most 20. They are not verified."""
    return [found[1] for found, _ in zip(_ADDRESS.finditer(text), range(20), strict=False)]


def read_send_id(token: str) -> int:
    """The id of the send that the token was made for. Raises InvalidTokenError."""
    if len(token) == _HEX_LENGTH:
        try:
            token = urlsafe_b64encode(bytes.fromhex(token)).decode()
        except ValueError as error:
            raise InvalidTokenError("not a token") from error
    return open_send_token(Purpose.BOUNCE, token)
