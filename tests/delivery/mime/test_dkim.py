"""Tests of DKIM signatures, verified by the independent ``dkim`` package."""

import dataclasses
from base64 import b64decode
from datetime import UTC, datetime

import dkim as verifier
import pytest
from cryptography.hazmat.primitives.serialization import load_der_public_key
from hypothesis import given, settings
from hypothesis import strategies as st

from campaigns.delivery.mime import dkim
from campaigns.delivery.mime.compose import compose
from campaigns.delivery.mime.dkim import Algorithm, Signer
from tests.delivery.mime.test_mail_template import make_mail_context, templates, values

AT = datetime(2026, 11, 22, 12, 0, tzinfo=UTC)
KEYS = {algorithm: dkim.generate_key(algorithm) for algorithm in Algorithm}
SIGNERS = tuple(
    Signer("example.org", algorithm.value, dkim.load_private_key(KEYS[algorithm][0])) for algorithm in Algorithm
)


def fake_dns(name: bytes, timeout: int = 5) -> bytes:
    algorithm = Algorithm(name.decode().partition(".")[0])
    assert name.decode() == f"{algorithm.value}._domainkey.example.org."
    return dkim.dns_record_value(algorithm, KEYS[algorithm][1]).encode()


def verify_signatures(content: bytes) -> list[bool]:
    return [_verify_signature(content, place) for place in range(len(SIGNERS))]


def _verify_signature(content: bytes, index: int) -> bool:
    try:
        return bool(verifier.DKIM(content).verify(idx=index, dnsfunc=fake_dns))
    except verifier.ValidationError:  # a body that is not the signed one
        return False


def test_key_sizes() -> None:
    key = load_der_public_key(b64decode(KEYS[Algorithm.RSA][1]))
    assert key.key_size == 2048  # type: ignore[union-attr]
    assert len(b64decode(KEYS[Algorithm.ED25519][1])) == 32


@settings(max_examples=25)
@given(templates, values)
def test_another_implementation_verifies(source: str, first: str) -> None:
    made = dataclasses.replace(
        make_mail_context(source, source, first, "", subject="{{ contact.first_name }}"), signers=SIGNERS
    )
    assert verify_signatures(compose(made, AT).content) == [True, True]


@pytest.mark.parametrize(
    "added", [b"Reply-To: <me@example.com>", b"From: <me@example.com>", b"List-Unsubscribe: <x:y>"]
)
def test_no_header_can_be_added(added: bytes) -> None:
    made = dataclasses.replace(make_mail_context("Hello  there \t.", "Hello", "Ana", ""), signers=SIGNERS)
    content = compose(made, AT).content
    assert verify_signatures(content) == [True, True]
    head, body = content.split(b"\r\n\r\n", 1)
    assert verify_signatures(head + b"\r\n" + added + b"\r\n\r\n" + body) == [False, False]
    assert verify_signatures(head + b"\r\n\r\n" + body.replace(b"Hello", b"Hallo")) == [False, False]


@settings(max_examples=50)
@given(st.lists(st.sampled_from([b"a", b" ", b"\t", b"\r\n", b"="])).map(b"".join))
def test_any_body_is_canonicalised(body: bytes) -> None:
    content = b"From: <us@example.org>\r\n\r\n" + body + b".\r\n"
    assert verify_signatures(dkim.sign(content, SIGNERS, AT)) == [True, True]
