"""DKIM signatures (RFC 6376, RFC 8463): relaxed/relaxed, with the important headers signed and oversigned.

Bodies from :mod:`campaigns.delivery.mime.quoted_printable` are in relaxed canonical form already (no tabs, no runs of
blanks, no trailing blanks), so they are hashed as they are. ``tests/benchmarks/composing.py`` measures signing.

``cryptography`` is imported inside the functions, so that only workers that sign load it into memory.
"""

import re
from base64 import b64decode, b64encode
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from functools import lru_cache
from hashlib import sha256
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric import ed25519, rsa

    PrivateKey = rsa.RSAPrivateKey | ed25519.Ed25519PrivateKey

RSA_BITS = 2048
_SIGNED_HEADERS = (
    "From",
    "To",
    "Subject",
    "Date",
    "Message-ID",
    "Reply-To",
    "MIME-Version",
    "Content-Type",
    "Content-Transfer-Encoding",
    "List-Id",
    "List-Unsubscribe",
    "List-Unsubscribe-Post",
    "Feedback-ID",
)
_SIGNED_BY_LOWER_NAME = {name.lower(): name for name in _SIGNED_HEADERS}
_FIELD_END = re.compile(r"\r\n(?![ \t])")
_FOLD = re.compile(r"[ \t\r\n]+")
_BLANK_RUNS = re.compile(rb"[ \t]+")
_TRAILING_BLANKS = re.compile(rb"[ \t]+(?=\r\n)")


class Algorithm(StrEnum):
    """Signature algorithm of a DKIM key; the value is the ``k=`` tag of its DNS record."""

    RSA = "rsa"
    ED25519 = "ed25519"

    @property
    def label(self) -> str:
        return {self.RSA: "RSA-2048", self.ED25519: "Ed25519"}[self]


@dataclass(frozen=True, slots=True)
class Signer:
    """A private key with the domain and selector that it signs for."""

    domain: str
    selector: str
    key: "PrivateKey"


def generate_key(algorithm: Algorithm) -> tuple[str, str]:
    """Generate a key. Returns (private key as base64 of PKCS #8, public key as in the ``p=`` tag of its record)."""
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric import ed25519, rsa

    key: PrivateKey
    if algorithm is Algorithm.RSA:
        key = rsa.generate_private_key(65537, RSA_BITS)
        spki = serialization.PublicFormat.SubjectPublicKeyInfo
        public = key.public_key().public_bytes(serialization.Encoding.DER, spki)
    else:
        key = ed25519.Ed25519PrivateKey.generate()
        public = key.public_key().public_bytes(serialization.Encoding.Raw, serialization.PublicFormat.Raw)
    private = key.private_bytes(
        serialization.Encoding.DER, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    return b64encode(private).decode(), b64encode(public).decode()


@lru_cache(32)
def load_private_key(private: str) -> "PrivateKey":
    """Load a private key written by :func:`generate_key`. Raises ValueError for another key type."""
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric import ed25519, rsa

    key = serialization.load_der_private_key(b64decode(private), None)
    if not isinstance(key, rsa.RSAPrivateKey | ed25519.Ed25519PrivateKey):
        raise ValueError("neither an RSA nor an Ed25519 key")
    return key


def dns_record_value(algorithm: Algorithm, public: str) -> str:
    """The value of the TXT record that publishes a key."""
    return f"v=DKIM1; k={algorithm.value}; p={public}"


def sign(content: bytes, signers: Sequence[Signer], at: datetime, *, is_canonical: bool = False) -> bytes:
    """``content`` with one DKIM-Signature header per signer in front.

    ``is_canonical`` skips the canonicalisation of a body that is known to be in relaxed form.
    """
    if not signers:
        return content
    start = content.index(b"\r\n\r\n")
    names, lines = _signed_headers(content[:start].decode())
    body = memoryview(content)[start + 4 :] if is_canonical else _canonical_body(content[start + 4 :])
    body_hash = b64encode(sha256(body).digest()).decode()
    signatures = [_signature(signer, names, lines, body_hash, int(at.timestamp())) for signer in signers]
    return b"".join((*signatures, content))


def _canonical_body(body: bytes) -> bytes:
    if b"  " in body or b"\t" in body or b" \r\n" in body:
        body = _BLANK_RUNS.sub(b" ", _TRAILING_BLANKS.sub(b"", body))
    return body.rstrip(b"\r\n") + b"\r\n" if body.endswith(b"\r\n\r\n") else body


def _signed_headers(head: str) -> tuple[str, str]:
    """(the header names for ``h=``, the canonical lines of these headers).

    Each name is listed once more often than it occurs (oversigning), so that adding such a header breaks the signature.
    """
    lines_by_name: dict[str, list[str]] = {}
    for field in _FIELD_END.split(head):
        name, _, value = field.partition(":")
        name = name.lower()
        if name in _SIGNED_BY_LOWER_NAME:
            relaxed = _FOLD.sub(" ", value) if "\r" in value or "  " in value or "\t" in value else value
            lines_by_name.setdefault(name, []).append(f"{name}:{relaxed.strip()}\r\n")
    # Headers of the same name are signed from the last to the first (RFC 6376, section 5.4.2).
    canonical_lines = "".join(line for name in _SIGNED_BY_LOWER_NAME for line in reversed(lines_by_name.get(name, ())))
    return _header_list(tuple(len(lines_by_name.get(name, ())) for name in _SIGNED_BY_LOWER_NAME)), canonical_lines


@lru_cache(64)
def _header_list(counts: tuple[int, ...]) -> str:
    """The folded value of ``h=``: each signed name once more often than it occurs."""
    repeated = (name for name, count in zip(_SIGNED_HEADERS, counts, strict=True) for _ in range(count + 1))
    return ":\r\n ".join(repeated)


def _signature(signer: Signer, names: str, lines: str, body_hash: str, at: int) -> bytes:
    from cryptography.hazmat.primitives import hashes
    from cryptography.hazmat.primitives.asymmetric import padding, rsa

    algorithm = "rsa-sha256" if isinstance(signer.key, rsa.RSAPrivateKey) else "ed25519-sha256"
    value = (
        f"v=1; a={algorithm}; c=relaxed/relaxed; d={signer.domain};\r\n s={signer.selector}; t={at};\r\n"
        f" h={names};\r\n bh={body_hash};\r\n b="
    )
    signing_input = f"{lines}dkim-signature:{_FOLD.sub(' ', value).strip()}".encode()
    if isinstance(signer.key, rsa.RSAPrivateKey):
        signature = signer.key.sign(signing_input, padding.PKCS1v15(), hashes.SHA256())
    else:
        signature = signer.key.sign(sha256(signing_input).digest())
    text = b64encode(signature).decode()
    folded = "\r\n ".join(text[start : start + 72] for start in range(0, len(text), 72))
    return f"DKIM-Signature: {value}{folded}\r\n".encode()
