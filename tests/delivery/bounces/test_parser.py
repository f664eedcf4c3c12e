# ruff: noqa: E501
"""Tests of the bounce parser: the corpus, damaged and malicious input, the classification."""

import random
import time

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from campaigns import config
from campaigns.delivery.bounces.models import FeedbackType
from campaigns.delivery.bounces.parsing import mime_reader
from campaigns.delivery.bounces.parsing.classification import judge
from campaigns.delivery.bounces.parsing.parser import read
from campaigns.delivery.mime import verp
from campaigns.errors import BadToken
from campaigns.tokens import Purpose, mint_send
from tests.delivery.bounces.corpus import CORPUS, Shape, original, report, verp_of

SEND = (7 << 32) + 3
_QUIET = settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture], derandomize=True
)


@pytest.mark.parametrize("shape", CORPUS, ids=lambda shape: shape.name)
@pytest.mark.parametrize("ends", ["\n", "\r\n"])
def test_every_shape(shape: Shape, ends: str) -> None:
    notice = read(shape.raw(SEND).replace("\n", ends).encode())
    assert notice.finding.value == shape.finding, notice
    if shape.finding in ("hard", "soft", "policy", "complaint"):
        assert notice.send_id == SEND
        assert notice.status == shape.status
    if not shape.proves:
        assert notice.send_id is None


def test_the_corpus_is_broad() -> None:
    assert len(CORPUS) >= 40
    assert {shape.finding for shape in CORPUS} >= {"hard", "soft", "policy", "complaint", "auto_reply", "delayed"}


def test_a_token_survives_what_servers_do_to_an_address(settings: config.Settings) -> None:
    address = verp_of(SEND)
    local = address.partition("@")[0]
    assert len(local) <= 64
    for written in (address, address.upper(), f'"{local}"@x.example', f"<{address}>", address.replace("+", "=2B")):
        text = written.replace('"', "") if '"' in written else written
        assert [verp.send_of(token) for token in verp.tokens_in(text)] == [SEND], written
    old = f"b+{mint_send(Purpose.BOUNCE, SEND)}@example.org"
    assert [verp.send_of(token) for token in verp.tokens_in(old)] == [SEND]


def test_a_changed_or_foreign_token_opens_nothing() -> None:
    token = verp.tokens_in(verp_of(SEND))[0]
    for place in range(len(token)):
        wrong = token[:place] + ("0" if token[place] != "0" else "1") + token[place + 1 :]
        with pytest.raises(BadToken):
            verp.send_of(wrong)
    with pytest.raises(BadToken):
        verp.send_of(mint_send(Purpose.ENGAGEMENT, SEND))


@_QUIET
@given(junk=st.binary(max_size=3000))
def test_junk_is_not_understood_and_never_raises(junk: bytes) -> None:
    assert read(junk).finding in set(FeedbackType)


@_QUIET
@given(seed=st.integers(0, 10**9))
def test_a_damaged_message_never_raises(seed: int) -> None:
    chance = random.Random(seed)
    raw = bytearray(chance.choice(CORPUS).raw(SEND).encode())
    for _ in range(chance.randint(1, 40)):
        at = chance.randrange(len(raw))
        match chance.randint(0, 3):
            case 0:
                raw[at] = chance.randrange(256)
            case 1:
                del raw[at : at + chance.randint(1, 200)]
                raw += b"x"
            case 2:
                raw[at:at] = raw[at : at + chance.randint(1, 300)]
            case _:
                raw[at:at] = chance.choice([b"\0", b"\r\n\r\n", b"--b1\n", b"=?utf-8?B?/?=", "ж".encode("cp1251")])
    notice = read(bytes(raw))
    assert notice.send_id in (None, SEND)
    assert len(notice.said) <= 500


@pytest.mark.parametrize(
    "raw",
    [
        b"Content-Type: multipart/mixed; boundary=a\n\n"
        + b"--a\nContent-Type: multipart/mixed; boundary=a\n\n" * 20_000,
        b"".join(b"Content-Type: multipart/mixed; boundary=b%d\n\n--b%d\n" % (n, n) for n in range(30_000)),
        b'Content-Type: multipart/mixed; boundary="' + b"x" * 100_000 + b'"\n\nhello',
        b"Content-Type: multipart/mixed; boundary=x\n\n" + b"--x\n\n" * 400_000,
        b"Subject: " + b"=?utf-8?Q?=41?= " * 100_000 + b"\n\nhello",
        b"X: y\n" * 400_000,
        b"From: mailer-daemon@x.example\nSubject: failure notice\n\n" + b"5.1.1 " * 400_000,
        b"From: mailer-daemon@x.example\nSubject: failure notice\n\n" + b"user " * 500_000,
        b"From: mailer-daemon@x.example\nSubject: failure notice\n\n" + b"a@" * 1_000_000,
        b"Content-Type: message/delivery-status\n\n" + b"Final-Recipient: rfc822; x\n\n" * 100_000,
        b"\n" * 10_000_000,
        b"Content-Transfer-Encoding: base64\nContent-Type: text/plain\n\n" + b"QUFB" * 2_500_000,
    ],
    ids=[
        "nested",
        "nested by names",
        "long boundary",
        "many parts",
        "many words",
        "many fields",
        "many codes",
        "many users",
        "many addresses",
        "many groups",
        "ten megabytes of nothing",
        "ten megabytes encoded",
    ],
)
def test_a_bomb_costs_little(raw: bytes) -> None:
    began = time.process_time()
    assert read(raw).finding in set(FeedbackType)
    assert time.process_time() - began < 10.0


def test_ten_megabytes_given_back_hide_nothing() -> None:
    raw = report("5.1.1", "smtp; 550 5.1.1 unknown")(SEND).encode().replace(b"Hello\n", b"A" * 10_000_000)
    notice = read(raw)
    assert (notice.finding, notice.send_id) == (FeedbackType.HARD, SEND)


def test_a_report_in_base64_is_read() -> None:
    import base64

    status = "Reporting-MTA: dns; x\n\nFinal-Recipient: rfc822; a@b.example\nAction: failed\nStatus: 5.1.1\n"
    raw = (
        f"To: {verp_of(SEND)}\nContent-Type: multipart/report; boundary=z\n\n--z\nContent-Type: message/delivery-status\n"
        f"Content-Transfer-Encoding: base64\n\n{base64.encodebytes(status.encode()).decode()}\n--z--\n"
    )
    assert read(raw.encode()).finding is FeedbackType.HARD


def test_parts_are_counted_and_text_is_bounded() -> None:
    mail = mime_reader.opened(b"Content-Type: text/plain; charset=nonsense\n\n" + b"\xff" * 500_000)
    assert len(mail.parts[0].text) == 100_000
    assert original(SEND)


@pytest.mark.parametrize(
    ("status", "diagnostic", "finding"),
    [
        ("5.1.1", "", "hard"),
        ("5.1.2", "", "hard"),
        ("5.1.6", "", "hard"),
        ("5.1.10", "", "hard"),
        ("5.1.3", "", "soft"),
        ("5.2.1", "", "soft"),
        ("5.2.2", "", "soft"),
        ("4.2.2", "", "soft"),
        ("5.7.1", "user unknown", "policy"),
        ("5.7.26", "", "policy"),
        ("", "550 5.7.1 no", "policy"),
        ("", "550 user unknown", "hard"),
        ("", "552 user unknown, mailbox full", "soft"),
        ("", "450 user unknown", "soft"),
        ("5.0.0", "550 5.1.1 unknown", "hard"),
        ("5.1.1", "host 5.1.1.7 said: 550 blocked by blacklist", "policy"),
        ("", "", "soft"),
        ("", "connect to 192.0.2.4: timed out", "soft"),
        ("5.1.0", "550 unknown user", "hard"),
        ("4.4.7", "550 5.1.1 unknown", "hard"),
    ],
)
def test_verdicts(status: str, diagnostic: str, finding: str) -> None:
    assert judge(status, diagnostic).finding.value == finding
