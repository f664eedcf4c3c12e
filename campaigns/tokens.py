"""Signed tokens, each bound to its purpose: a token is valid only for the purpose it was minted for.

A token is base64url of ``key id (1 byte) | payload | MAC (12 bytes)``. The MAC is keyed BLAKE2b with the purpose as
personalisation (RFC 7693, section 2.8), 96 bits, compared in constant time. Old keys verify for as long as they stay
in the settings.
"""

import struct
from base64 import urlsafe_b64decode, urlsafe_b64encode
from binascii import a2b_base64, b2a_base64
from collections.abc import Callable, Mapping
from datetime import datetime
from enum import StrEnum
from hashlib import blake2b
from hmac import compare_digest
from typing import Any

from campaigns import clock, config
from campaigns.errors import InvalidTokenError
from campaigns.i18n import N_

MAC_BYTES = 12
_EXPIRY_BYTES = 5
_MAX_TOKEN_LENGTH = 512
_SEND_BYTES = 8
_SEND_TOKEN = struct.Struct(f">Bq{MAC_BYTES}s")
_SEND_TOKEN_LENGTH = (
    _SEND_TOKEN.size * 4 // 3
)  # 21 bytes fill 28 characters to the last bit, so there is exactly one encoding.
_FROM_URL = bytes.maketrans(b"-_+/", b"+/\0\0")  # + and / would be second encodings of - and _.
_URLSAFE = bytes.maketrans(b"+/", b"-_")


class Purpose(StrEnum):
    """Purpose of a token. At most 16 characters, the size of BLAKE2b's personalisation."""

    ENGAGEMENT = "engagement"  # /o and /c of one send
    UNSUBSCRIBE = "unsubscribe"  # the unsubscribe page of one send
    VISIT = "visit"  # `k` on a landing page: this visit came from a link of that send
    BOUNCE = "bounce"  # VERP envelope sender
    MESSAGE_ID = "message-id"
    DEVICE = "device"  # a browser in which this user signed in before
    CONFIRM = "confirm"  # a form's double opt-in
    SHARE = "share"  # a snapshot of a report for people without an account
    PASSWORD = "password"  # setting a new password
    VISITOR = "visitor"  # no token: keyed hash of the id that a visitor allowed us to keep
    ERASED = "erased"  # no token: keyed hash of an erased address that must not be imported again

    # Enum.__hash__ is a Python function, and purposes are dictionary keys on the path of every hit.
    __hash__ = str.__hash__


class Keyring:
    """Mints and verifies tokens with the keys of the settings."""

    def __init__(self, keys: tuple[tuple[int, bytes], ...]) -> None:
        self._signing_key_id = keys[-1][0]
        self._keys = dict(keys)
        self._states: dict[tuple[int, str], Any] = {}
        self._state_copiers: dict[tuple[Purpose, ...], list[Callable[[], Any]]] = {}
        self._send_openers: dict[str, Callable[[str], int]] = {}

    def _state(self, kid: int, purpose: str) -> Any:
        """The keyed BLAKE2b state, cached and copied for each token, so that the key block is hashed once."""
        state = self._states.get((kid, purpose))
        if state is None:
            state = blake2b(digest_size=MAC_BYTES, key=self._keys[kid], person=purpose.encode())
            self._states[kid, purpose] = state
        return state

    def _mac(self, kid: int, purpose: str, payload: bytes) -> bytes:
        state = self._state(kid, purpose).copy()
        state.update(payload)
        digest: bytes = state.digest()
        return digest

    def mint(self, purpose: Purpose, payload: bytes) -> str:
        """Mint a token for ``payload``; its length is ``4/3 × (13 + len(payload))`` characters."""
        kid = self._signing_key_id
        raw = bytes((kid,)) + payload + self._mac(kid, purpose, payload)
        return b2a_base64(raw, newline=False).translate(_URLSAFE, b"=").decode()

    def mint_send_tokens(self, send_id: int, *purposes: Purpose) -> list[str]:
        """One token of the send per purpose, each equal to the result of :meth:`mint`, encoded in one base64 call."""
        copies = self._state_copiers.get(purposes)
        if copies is None:
            copies = self._state_copiers[purposes] = [
                self._state(self._signing_key_id, purpose).copy for purpose in purposes
            ]
        payload = send_id.to_bytes(_SEND_BYTES)
        head, raw = bytes((self._signing_key_id,)) + payload, b""
        for copy in copies:
            state = copy()
            state.update(payload)
            raw += head + state.digest()
        # A send's token has 21 bytes, a multiple of 3, so concatenated tokens can be encoded together and cut apart.
        text = b2a_base64(raw, newline=False).translate(_URLSAFE).decode()
        return [text[start : start + _SEND_TOKEN_LENGTH] for start in range(0, len(text), _SEND_TOKEN_LENGTH)]

    def open(self, purpose: Purpose, token: str) -> bytes:
        """The payload of a token minted for ``purpose``. Raises InvalidTokenError for anything else."""
        try:
            raw = urlsafe_b64decode(token + "=" * (-len(token) % 4)) if len(token) <= _MAX_TOKEN_LENGTH else b""
        except ValueError:
            raw = b""
        if len(raw) < 1 + MAC_BYTES or raw[0] not in self._keys:
            raise InvalidTokenError(N_("This link is incomplete or was changed."))
        payload, mac = raw[1:-MAC_BYTES], raw[-MAC_BYTES:]
        # The second check rejects other encodings of the same bytes, so a token has one form only.
        if not compare_digest(mac, self._mac(raw[0], purpose, payload)) or (
            urlsafe_b64encode(raw).rstrip(b"=").decode() != token
        ):
            raise InvalidTokenError(N_("This link is incomplete or was changed."))
        return payload

    def send_opener(self, purpose: Purpose) -> Callable[[str], int]:
        """A function from a send's token to the send's id; like :meth:`open`, without its general cases.

        It verifies the token of every hit (``tests/benchmarks/hits.py``).
        """
        opener = self._send_openers.get(purpose)
        if opener is None:
            opener = self._send_openers[purpose] = _make_send_opener(
                {kid: self._state(kid, purpose) for kid in self._keys}
            )
        return opener

    def mint_expiring(self, purpose: Purpose, payload: bytes, expires: datetime) -> str:
        """Like :meth:`mint`, valid until ``expires`` (whole seconds)."""
        return self.mint(purpose, int(expires.timestamp()).to_bytes(_EXPIRY_BYTES) + payload)

    def open_expiring(self, purpose: Purpose, token: str) -> bytes:
        """Like :meth:`open`; also raises InvalidTokenError when the token has expired."""
        raw = self.open(purpose, token)
        if int.from_bytes(raw[:_EXPIRY_BYTES]) < clock.now().timestamp():
            raise InvalidTokenError(N_("This link has expired."))
        return raw[_EXPIRY_BYTES:]

    def keyed_hash(self, purpose: Purpose, value: str) -> str:
        """A keyed hash of ``value`` that only this installation can compute: 32 hex digits.

        It uses the *oldest* key, so that adding a key does not change it.
        """
        kid = min(self._keys)
        return blake2b(value.encode(), digest_size=16, key=self._keys[kid], person=purpose.encode()).hexdigest()


def _make_send_opener(states: Mapping[int, Any]) -> Callable[[str], int]:
    unpack, payload = _SEND_TOKEN.unpack, slice(1, 1 + _SEND_BYTES)

    def open_token(token: str) -> int:
        # a2b_base64 ignores characters outside its alphabet, so the length is checked first.
        if len(token) != _SEND_TOKEN_LENGTH:
            raise InvalidTokenError(N_("This link is incomplete or was changed."))
        try:
            raw = a2b_base64(token.encode("ascii").translate(_FROM_URL))
            kid, send_id, mac = unpack(raw)
            state = states[kid].copy()
        except (ValueError, LookupError, struct.error):
            raise InvalidTokenError(N_("This link is incomplete or was changed.")) from None
        state.update(raw[payload])
        if not compare_digest(mac, state.digest()) or send_id < 0:  # Database ids have 63 bits.
            raise InvalidTokenError(N_("This link is incomplete or was changed."))
        found: int = send_id
        return found

    return open_token


_keyring: tuple[config.Settings, Keyring] | None = None


def keyring() -> Keyring:
    """The keyring of this process's settings."""
    global _keyring
    settings = config.settings()
    if _keyring is None or _keyring[0] is not settings:
        _keyring = (settings, Keyring(settings.secret_keys))
    return _keyring[1]


def mint_send_token(purpose: Purpose, send_id: int) -> str:
    """The token of one send, 28 characters."""
    return keyring().mint(purpose, send_id.to_bytes(_SEND_BYTES))


def mint_send_tokens(send_id: int, *purposes: Purpose) -> list[str]:
    """The send's tokens for several purposes, each as :func:`mint_send_token` makes it."""
    return keyring().mint_send_tokens(send_id, *purposes)


def open_send_token(purpose: Purpose, token: str) -> int:
    """The id of the send. Raises InvalidTokenError."""
    return keyring().send_opener(purpose)(token)
