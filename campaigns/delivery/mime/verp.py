"""The envelope sender names the send: ``b+<token>@<bounce domain>``, whatever a mail server does to its case."""

import re
from base64 import urlsafe_b64encode
from binascii import a2b_base64

from campaigns.errors import BadToken
from campaigns.tokens import Purpose, mint_send, open_send

_FROM_URL = bytes.maketrans(b"-_", b"+/")
_HEX = 42  # 21 bytes: as base64 they would not survive a server that lowers the case
_ADDRESS = re.compile(r"\bb(?:\+|=2b|%2b)([0-9a-f]{42}|[\w-]{28})@", re.I)
"""The second form is that of mails from before."""


def sender(send_id: int, domain: str) -> str:
    """The envelope sender of a send's mail."""
    return address(mint_send(Purpose.BOUNCE, send_id), domain)


def address(token: str, domain: str) -> str:
    """The envelope sender with a token of purpose *bounce*."""
    return f"b+{a2b_base64(token.encode().translate(_FROM_URL)).hex()}@{domain}"


def tokens_in(text: str) -> list[str]:
    """What looks like the token of an envelope sender of ours, in order; at most 20."""
    return [found[1] for found, _ in zip(_ADDRESS.finditer(text), range(20), strict=False)]


def send_of(token: str) -> int:
    """The send that the token was made for. Raises BadToken."""
    if len(token) == _HEX:
        try:
            token = urlsafe_b64encode(bytes.fromhex(token)).decode()
        except ValueError as error:
            raise BadToken("not a token") from error
    return open_send(Purpose.BOUNCE, token)
