"""Tests of TLS: certificate verification, authentication after STARTTLS, and failures against smtp-sink."""

import dataclasses
import datetime
import shutil
import socket
import ssl
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from aiosmtpd.controller import Controller
from aiosmtpd.smtp import AuthResult
from sqlalchemy import Engine

from campaigns import config, db
from campaigns.delivery.relays import availability
from campaigns.delivery.relays.connection_test import try_connection
from campaigns.delivery.smtp.address import RelayAddress, TlsMode
from campaigns.delivery.smtp.handshake import RelayUnavailable
from campaigns.delivery.worker.worker import deliver
from tests.delivery import certificates
from tests.delivery.certificates import DAY
from tests.delivery.fake_relay import make_mails, run_fake_relay, send_mails
from tests.delivery.launched_activity import count_states, load_sends
from tests.delivery.worker.test_worker import launch_mailing


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture
def certificate(tmp_path: Path) -> Path:
    """A file with a valid certificate for 127.0.0.1 and its key."""
    return certificates.make_certificate(tmp_path / "relay.pem")


class Hears:
    """aiosmtpd handler that records the recipients of received mails."""

    def __init__(self) -> None:
        self.mails: list[str] = []

    async def handle_DATA(self, _server: Any, _session: Any, envelope: Any) -> str:
        self.mails += envelope.rcpt_tos
        return "250 2.0.0 ok"


@pytest.fixture
def relay(certificate: Path) -> Iterator[tuple[RelayAddress, Hears]]:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    handler = Hears()

    def check(_server: Any, _session: Any, _envelope: Any, _mechanism: str, given: Any) -> AuthResult:
        return AuthResult(success=(given.login, given.password) == (b"me", b"secret"), handled=False)

    controller = Controller(
        handler,
        "127.0.0.1",
        free_port(),
        tls_context=context,
        require_starttls=True,
        authenticator=check,
        auth_required=True,
    )
    controller.start()
    yield RelayAddress("127.0.0.1", controller.port, "me", "secret", TlsMode.VERIFY), handler
    controller.stop()


def test_delivery_over_starttls_with_authentication(
    settings: config.Settings, relay: tuple[RelayAddress, Hears], certificate: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    address, handler = relay
    assert send_mails(make_mails(3), address).statuses == ["sent"] * 3
    assert len(handler.mails) == 3
    result = try_connection(address)
    assert result.error == ""
    assert result.tls.startswith("TLSv1.")
    assert "AUTH" in dict(result.extensions)  # offered only after TLS
    assert dict(result.certificate)["issuer"] == "relay"
    assert [what for who, what in result.dialogue if who == "C" and "AUTH" in what] == ["AUTH PLAIN ***"]
    with pytest.raises(RelayUnavailable, match="535"):
        send_mails(make_mails(1), dataclasses.replace(address, password="wrong"))


@contextmanager
def run_tls_relay(certificate: Path, tls: TlsMode) -> Iterator[tuple[RelayAddress, Hears]]:
    """Run a relay with this certificate, with implicit TLS or STARTTLS."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    handler = Hears()
    tls_options: dict[str, Any] = {"ssl_context" if tls is TlsMode.IMPLICIT else "tls_context": context}
    controller = Controller(handler, "127.0.0.1", free_port(), **tls_options)
    controller.start()
    yield RelayAddress("127.0.0.1", controller.port, tls=tls), handler
    controller.stop()


CERTIFICATES: dict[str, tuple[str, datetime.timedelta, bool, str]] = {
    "good": ("127.0.0.1", -DAY, True, ""),
    "of an unknown issuer": ("127.0.0.1", -DAY, False, "signed certificate"),
    "of another name": ("127.0.0.2", -DAY, True, "not valid for '127.0.0.1'"),
    "expired": ("127.0.0.1", -3 * DAY, True, "certificate has expired"),
    "of tomorrow": ("127.0.0.1", DAY, True, "certificate is not yet valid"),
}
"""(address, start of validity, whether the issuer is trusted, expected part of the error)."""


@pytest.mark.parametrize("kind", CERTIFICATES)
@pytest.mark.parametrize("tls", [TlsMode.VERIFY, TlsMode.IMPLICIT])
def test_invalid_certificates_are_refused(
    settings: config.Settings, tmp_path: Path, tls: TlsMode, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    address, begins, known, words = CERTIFICATES[kind]
    made = certificates.make_certificate(tmp_path / "relay.pem", address, begins=begins)
    if known:
        monkeypatch.setenv("SSL_CERT_FILE", str(made))
    with run_tls_relay(made, tls) as (relay, hears):
        if not words:
            assert send_mails(make_mails(2), relay).statuses == ["sent", "sent"]
            return
        with pytest.raises(RelayUnavailable, match=words):
            send_mails(make_mails(2), relay)
        assert words in try_connection(relay).error
        assert hears.mails == []
        if tls is TlsMode.VERIFY:  # With TLS mode "off" no certificate is checked.
            assert send_mails(make_mails(1), dataclasses.replace(relay, tls=TlsMode.OFF)).statuses == ["sent"]


@pytest.mark.parametrize("kind", ["expired", "nothing offered"])
def test_tls_failure_leaves_sends_queued(
    database: Engine, settings: config.Settings, tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    activity_id = launch_mailing(3)
    made = certificates.make_certificate(tmp_path / "relay.pem", begins=-3 * DAY)
    monkeypatch.setenv("SSL_CERT_FILE", str(made))
    with run_tls_relay(made, TlsMode.VERIFY) as (relay, hears), run_fake_relay(settings) as plain:
        port = relay.port if kind == "expired" else plain.port
        config.set_settings(dataclasses.replace(settings, smtp_url=f"smtp://127.0.0.1:{port}?tls=verify"))
        assert deliver(activity_id) == 0
    assert not hears.mails
    assert not plain.contents
    assert count_states(activity_id) == {"queued": 3}
    assert {send.attempts for send in load_sends(activity_id)} == {0}
    with db.read_only_session() as session:
        trouble = availability.failing_relay(session)
        assert trouble is not None
        assert ("expired" if kind == "expired" else "STARTTLS") in trouble.error


@pytest.mark.skipif(shutil.which("smtp-sink") is None, reason="smtp-sink (Postfix) is not installed")
@pytest.mark.parametrize(
    ("flags", "status"),
    [
        ([], "sent"),
        (["-p"], "sent"),  # without pipelining
        (["-e"], "sent"),  # without ESMTP
        (["-f", "RCPT"], "sender_rejected"),
        (["-r", "RCPT"], "deferred"),
        (["-f", "."], "sender_rejected"),
        (["-r", "."], "deferred"),
        (["-q", "DATA"], "connection_lost"),
        (["-q", "."], "unknown"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else value,
)
def test_against_smtp_sink(settings: config.Settings, flags: list[str], status: str) -> None:
    port = free_port()
    command = ["smtp-sink", *(["-u", "nobody"] if Path("/root").owner() == "root" else []), *flags]
    with subprocess.Popen([*command, f"127.0.0.1:{port}", "64"], stderr=subprocess.PIPE) as sink:
        try:
            for _ in range(3000):
                with socket.socket() as probe:
                    if probe.connect_ex(("127.0.0.1", port)) == 0:
                        break
                time.sleep(0.02)
            mail_queue = send_mails(make_mails(3), RelayAddress("127.0.0.1", port, tls=TlsMode.OFF))
            assert mail_queue.statuses[0] == status, mail_queue.outcomes
            assert len(mail_queue.outcomes) + len(mail_queue.given_back) + len(mail_queue.mails) == 3
        finally:
            sink.kill()
