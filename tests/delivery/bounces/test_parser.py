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
from campaigns.delivery.bounces.parsing.classification import classify
from campaigns.delivery.bounces.parsing.parser import parse
from campaigns.delivery.mime import verp
from campaigns.errors import InvalidTokenError
from campaigns.tokens import Purpose, mint_send_token
from tests.delivery.bounces.corpus import CORPUS, BounceSample, dsn_report, envelope_sender, returned_mail

SEND_ID = (7 << 32) + 3
_HYPOTHESIS_SETTINGS = settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture], derandomize=True
)


@pytest.mark.parametrize("sample", CORPUS, ids=lambda sample: sample.name)
@pytest.mark.parametrize("line_end", ["\n", "\r\n"])
def test_every_sample(sample: BounceSample, line_end: str) -> None:
    notice = parse(sample.raw(SEND_ID).replace("\n", line_end).encode())
    assert notice.feedback_type.value == sample.feedback_type, notice
    if sample.feedback_type in ("hard", "soft", "policy", "complaint"):
        assert notice.send_id == SEND_ID
        assert notice.status == sample.status
    if not sample.is_attributed:
        assert notice.send_id is None


def test_the_corpus_is_broad() -> None:
    assert len(CORPUS) >= 40
    assert {shape.feedback_type for shape in CORPUS} >= {"hard", "soft", "policy", "complaint", "auto_reply", "delayed"}


def test_a_token_survives_address_rewriting(settings: config.Settings) -> None:
    address = envelope_sender(SEND_ID)
    local = address.partition("@")[0]
    assert len(local) <= 64
    for written in (address, address.upper(), f'"{local}"@x.example', f"<{address}>", address.replace("+", "=2B")):
        text = written.replace('"', "") if '"' in written else written
        assert [verp.read_send_id(token) for token in verp.find_tokens(text)] == [SEND_ID], written
    old = f"b+{mint_send_token(Purpose.BOUNCE, SEND_ID)}@example.org"
    assert [verp.read_send_id(token) for token in verp.find_tokens(old)] == [SEND_ID]


def test_an_altered_token_is_invalid() -> None:
    token = verp.find_tokens(envelope_sender(SEND_ID))[0]
    for index in range(len(token)):
        wrong = token[:index] + ("0" if token[index] != "0" else "1") + token[index + 1 :]
        with pytest.raises(InvalidTokenError):
            verp.read_send_id(wrong)
    with pytest.raises(InvalidTokenError):
        verp.read_send_id(mint_send_token(Purpose.ENGAGEMENT, SEND_ID))


@_HYPOTHESIS_SETTINGS
@given(junk=st.binary(max_size=3000))
def test_random_bytes_never_raise(junk: bytes) -> None:
    assert parse(junk).feedback_type in set(FeedbackType)


@_HYPOTHESIS_SETTINGS
@given(seed=st.integers(0, 10**9))
def test_a_damaged_message_never_raises(seed: int) -> None:
    rng = random.Random(seed)
    raw = bytearray(rng.choice(CORPUS).raw(SEND_ID).encode())
    for _ in range(rng.randint(1, 40)):
        index = rng.randrange(len(raw))
        match rng.randint(0, 3):
            case 0:
                raw[index] = rng.randrange(256)
            case 1:
                del raw[index : index + rng.randint(1, 200)]
                raw += b"x"
            case 2:
                raw[index:index] = raw[index : index + rng.randint(1, 300)]
            case _:
                raw[index:index] = rng.choice([b"\0", b"\r\n\r\n", b"--b1\n", b"=?utf-8?B?/?=", "ж".encode("cp1251")])
    notice = parse(bytes(raw))
    assert notice.send_id in (None, SEND_ID)
    assert len(notice.diagnostic) <= 500


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
def test_malicious_messages_are_parsed_in_bounded_time(raw: bytes) -> None:
    started_at = time.process_time()
    assert parse(raw).feedback_type in set(FeedbackType)
    assert time.process_time() - started_at < 10.0


def test_a_large_returned_mail_does_not_hide_the_report() -> None:
    raw = dsn_report("5.1.1", "smtp; 550 5.1.1 unknown")(SEND_ID).encode().replace(b"Hello\n", b"A" * 10_000_000)
    notice = parse(raw)
    assert (notice.feedback_type, notice.send_id) == (FeedbackType.HARD, SEND_ID)


def test_a_report_in_base64_is_read() -> None:
    import base64

    status = "Reporting-MTA: dns; x\n\nFinal-Recipient: rfc822; a@b.example\nAction: failed\nStatus: 5.1.1\n"
    raw = (
        f"To: {envelope_sender(SEND_ID)}\nContent-Type: multipart/report; boundary=z\n\n--z\nContent-Type: message/delivery-status\n"
        f"Content-Transfer-Encoding: base64\n\n{base64.encodebytes(status.encode()).decode()}\n--z--\n"
    )
    assert parse(raw.encode()).feedback_type is FeedbackType.HARD


def test_parts_are_counted_and_text_is_bounded() -> None:
    mail = mime_reader.parse_mail(b"Content-Type: text/plain; charset=nonsense\n\n" + b"\xff" * 500_000)
    assert len(mail.parts[0].text) == 100_000
    assert returned_mail(SEND_ID)


@pytest.mark.parametrize(
    ("status", "diagnostic", "expected"),
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
def test_classification(status: str, diagnostic: str, expected: str) -> None:
    assert classify(status, diagnostic).feedback_type.value == expected
