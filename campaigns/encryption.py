"""Encryption at rest (AES-256-GCM) of secrets that must be readable again, with the installation's own keys."""

import secrets
from base64 import urlsafe_b64decode, urlsafe_b64encode
from hashlib import blake2b
from typing import TYPE_CHECKING

from campaigns import config

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM

_NONCE = 12


def encrypt(text: str, purpose: str) -> str:
    """Encrypt ``text`` with the newest key of the settings, bound to ``purpose`` (at most 16 characters).

    Returns base64url of ``key id (1 byte) | nonce (12 bytes) | ciphertext``; the empty text stays empty.
    """
    if not text:
        return ""
    kid, key = config.settings().secret_keys[-1]
    nonce = secrets.token_bytes(_NONCE)
    ciphertext = _cipher(key, purpose).encrypt(nonce, text.encode(), None)
    return urlsafe_b64encode(bytes((kid,)) + nonce + ciphertext).decode()


def decrypt(encrypted: str, purpose: str) -> str:
    """Decrypt the result of :func:`encrypt`.

    Raises ValueError when its key is no longer in the settings or the ciphertext was altered.
    """
    if not encrypted:
        return ""
    from cryptography.exceptions import InvalidTag  # Imported here, so that a worker without secrets never loads it.

    raw = urlsafe_b64decode(encrypted)
    keys = dict(config.settings().secret_keys)
    if not raw or raw[0] not in keys:
        raise ValueError("sealed with a key that the settings no longer have")
    try:
        return _cipher(keys[raw[0]], purpose).decrypt(raw[1 : 1 + _NONCE], raw[1 + _NONCE :], None).decode()
    except InvalidTag as error:
        raise ValueError("a sealed secret was changed") from error


def _cipher(key: bytes, purpose: str) -> "AESGCM":
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM

    return AESGCM(blake2b(digest_size=32, key=key[:64], person=purpose.encode()).digest())
