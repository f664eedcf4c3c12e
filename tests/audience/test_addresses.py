"""E-mail address normalisation."""

import email_validator
import pytest
from email_validator import SPECIAL_USE_DOMAIN_NAMES
from hypothesis import given
from hypothesis import strategies as st

from campaigns.audience import addresses
from campaigns.audience.addresses import is_address, normalise
from campaigns.errors import ValidationFailed


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("Ann@Example.ORG", "ann@example.org"),
        ("  ann@example.org\u200b\r\n", "ann@example.org"),
        ("\u202aann@example.org\u202c", "ann@example.org"),
        ("ann.lee+news@example.org", "ann.lee+news@example.org"),
        ("ann@bücher.example", "ann@xn--bcher-kva.example"),
        ("ann@XN--BCHER-KVA.example", "ann@xn--bcher-kva.example"),
        ("Élodie@example.org", "élodie@example.org"),
        ("e\u0301lodie@example.org", "élodie@example.org"),
        ("ann@مثال.ایران", "ann@xn--mgbh0fb.xn--mgba3a4f16a"),
        ("o'neil@a-b.example", "o'neil@a-b.example"),
        ("ann@demo.test", "ann@demo.test"),
    ],
)
def test_canonical_spelling(text: str, address: str) -> None:
    assert normalise(text) == address


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "missing"),
        ("   ", "missing"),
        ("ann", "no @"),
        ("ann@", "not an e-mail"),
        ("@example.org", "not an e-mail"),
        ("ann@@example.org", "not an e-mail"),
        ("ann@example", "not an e-mail"),
        ("ann@example..org", "not an e-mail"),
        ("ann@-example.org", "not an e-mail"),
        (".ann@example.org", "not an e-mail"),
        ("ann@127.0.0.1", "not an e-mail"),
        ("ann@[127.0.0.1]", "not an e-mail"),
        ("ann@localhost", "not an e-mail"),
        ("ann@mail.invalid", "not an e-mail"),
        ('"ann"@example.org', "not an e-mail"),
        ("a b@example.org", "without blanks"),
        ("a@example.org, b@example.org", "without blanks"),
        ("Ann <ann@example.org>", "without blanks"),
        ("<ann@example.org>", "not an e-mail"),
        ("ann@example.org\x00", "not an e-mail"),
        ("a\nBcc: b@example.org", "without blanks"),
        ("a" * 65 + "@example.org", "too long"),
        ("a@" + "b" * 64 + ".org", "not an e-mail"),
        ("a@" + "b." * 130 + "org", "too long"),
        ("é" * 40 + "@example.org", "too long"),
        ("ann\u200b@example.org", "not an e-mail"),
    ],
)
def test_invalid_addresses_are_refused_with_a_reason(text: str, words: str) -> None:
    with pytest.raises(ValidationFailed, match=words) as caught:
        normalise(text)
    assert caught.value.problems[0].field == "email"


@given(
    st.one_of(
        st.emails(), st.text(max_size=30), st.from_regex(r"[A-Za-z0-9.+'_-]{1,70}@[a-zA-Z0-9.-]{1,70}\.[a-z]{1,4}")
    )
)
def test_normalise_is_idempotent(text: str) -> None:
    try:
        once = normalise(text)
    except ValidationFailed:
        return
    assert normalise(once) == once
    assert len(once.encode()) <= addresses.MAX_ADDRESS_BYTES


@given(st.from_regex(r"[a-z0-9.+_'-]{1,66}@[a-z0-9.-]{1,66}\.[a-z0-9]{1,4}", fullmatch=True))
def test_fast_path_agrees_with_email_validator(text: str) -> None:
    try:
        email_validator.validate_email(text, check_deliverability=False, test_environment=True)
    except email_validator.EmailNotValidError:
        assert not is_address(text)
    else:
        assert normalise(text) == text


def test_special_use_domains_match_email_validator() -> None:
    assert {*addresses._SPECIAL_USE_DOMAINS, "test"} == set(SPECIAL_USE_DOMAIN_NAMES)
