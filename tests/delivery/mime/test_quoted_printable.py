"""Tests of the quoted-printable encoding: safe lines, and decoding gives the original text."""

import quopri

import pytest
from hypothesis import given
from hypothesis import strategies as st

from campaigns.delivery.mime.quoted_printable import encode_body

LINES = [
    "From here",
    ".",
    "..",
    "a" * 75 + ".",
    "From " * 30,
    "." * 200,
    "x" * 70 + " From ",
    "trailing \n tab\t",
    "é" * 99,
]


def check(text: str) -> None:
    encoded = encode_body(text)
    assert encoded.endswith(b"\r\n")
    for line in encoded[:-2].split(b"\r\n"):
        assert len(line) <= 76
        assert not line.startswith((b".", b"From "))
        assert not line.endswith((b" ", b"\t"))
        assert b"\r" not in line
        assert b"\n" not in line
    plain = text.replace("\r\n", "\n").replace("\r", "\n").rstrip("\n") + "\n"
    assert quopri.decodestring(encoded).replace(b"\r\n", b"\n") == plain.encode("utf-8", "replace")


@pytest.mark.parametrize("text", LINES)
def test_risky_lines(text: str) -> None:
    check(text)


@given(st.text(st.sampled_from(".F rom=\t\na\r\né")))
def test_any_text(text: str) -> None:
    check(text)
