"""Tests of header encoding: Python's parser reads values back, and no value can inject a header."""

from datetime import UTC, datetime
from email import message_from_bytes, policy
from email.headerregistry import AddressHeader

import pytest
from hypothesis import given
from hypothesis import strategies as st

from campaigns.delivery.mime.headers import encode_mailbox, encode_text, format_date, with_ascii_domain


def parse_header(name: str, value: str) -> object:
    raw = f"{name}: {value}\r\n\r\n".encode("ascii")
    assert all(len(line) <= 78 for line in raw.split(b"\r\n")), raw
    assert raw.count(b"\r\n") == raw.count(b"\n")
    message = message_from_bytes(raw, policy=policy.default)
    assert message.keys() == [name]
    return message[name]


NAMES = ["", "Ana", ".dot García", 'Q "quoted" \\ back', "Müller, Jürgen", "=?utf-8?B?aGk=?=", "a@b", "x" * 90]
NAMES += ["نگار کریمی", "ნინო ბერიძე " * 6, "Lea\r\nBcc: all@example.org", "O'Neil (sales)", "👩‍👩‍👧‍👦" * 5, "a  b"]


@pytest.mark.parametrize("name", NAMES)
def test_display_names_are_read_back(name: str) -> None:
    header = parse_header("To", encode_mailbox(name, "ana@example.org", 4))
    assert isinstance(header, AddressHeader)
    (address,) = header.addresses
    assert address.addr_spec == "ana@example.org"
    # Python 3.11 keeps the fold between two encoded words, which RFC 2047 (section 6.2) says to ignore.
    assert "".join(address.display_name.split()) == "".join(name.split())


@given(st.text(st.characters(exclude_categories=("Cs", "Cc", "Zl", "Zp", "Zs")) | st.just(" "), max_size=120))
def test_subjects_are_read_back(text: str) -> None:
    assert str(parse_header("Subject", encode_text(text, 9))).split() == text.split()


@given(st.text(max_size=80))
def test_nothing_ends_the_line(text: str) -> None:
    parse_header("Subject", encode_text(text, 9))
    parse_header("To", encode_mailbox(text, "ana@example.org", 4))


@pytest.mark.parametrize(
    "bad", ["", "a", "@b", "a@", "a b@c.de", "a@b\r\nBcc: x@y.z", "a>@b.de", "a@b.de>", "é" * 250 + "@b.de"]
)
def test_bad_addresses_are_refused(bad: str) -> None:
    with pytest.raises(ValueError, match="not a"):
        with_ascii_domain(bad)


def test_domains_become_a_labels() -> None:
    assert with_ascii_domain("ana@bücher.example") == "ana@xn--bcher-kva.example"


def test_date_is_in_utc() -> None:
    assert format_date(datetime(2026, 11, 22, 3, 4, 5, tzinfo=UTC)) == "Sun, 22 Nov 2026 03:04:05 +0000"
