"""STARTTLS with a certificate that holds, sign-in behind it, and what another relay's faults look like."""

import dataclasses
import datetime
import ipaddress
import shutil
import socket
import ssl
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from aiosmtpd.controller import Controller
from aiosmtpd.smtp import AuthResult
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from campaigns import config
from campaigns.delivery.greeting import RelayDown
from campaigns.delivery.relay import RelayAddress, Tls
from campaigns.delivery.trying import attempt
from tests.delivery.strange import mails, posted


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture
def certificate(tmp_path: Path) -> Path:
    """A certificate for 127.0.0.1, with its key, in one file."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "relay")])
    now = datetime.datetime.now(datetime.UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    path = tmp_path / "relay.pem"
    encoding, plain = serialization.Encoding.PEM, serialization.NoEncryption()
    path.write_bytes(
        key.private_bytes(encoding, serialization.PrivateFormat.PKCS8, plain) + made.public_bytes(encoding)
    )
    return path


class Hears:
    """Keeps what was mailed."""

    def __init__(self) -> None:
        self.mails: list[str] = []

    async def handle_DATA(self, _server: Any, _session: Any, envelope: Any) -> str:
        self.mails += envelope.rcpt_tos
        return "250 2.0.0 ok"


@pytest.fixture
def relay(certificate: Path) -> Iterator[tuple[RelayAddress, Hears]]:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    hears = Hears()

    def check(_server: Any, _session: Any, _envelope: Any, _mechanism: str, given: Any) -> AuthResult:
        return AuthResult(success=(given.login, given.password) == (b"me", b"secret"), handled=False)

    controller = Controller(
        hears, "127.0.0.1", free_port(), tls_context=context, require_starttls=True, authenticator=check,
        auth_required=True,
    )  # fmt: skip
    controller.start()
    yield RelayAddress("127.0.0.1", controller.port, "me", "secret", Tls.VERIFY), hears
    controller.stop()


def test_mail_goes_through_tls_after_sign_in(
    settings: config.Settings, relay: tuple[RelayAddress, Hears], certificate: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    address, hears = relay
    assert posted(mails(3), address).fates == ["sent"] * 3
    assert len(hears.mails) == 3
    trial = attempt(address)
    assert trial.error == ""
    assert trial.tls.startswith("TLSv1.")
    assert "AUTH" in dict(trial.extensions)  # offered only after TLS
    assert dict(trial.certificate)["issuer"] == "relay"
    assert [what for who, what in trial.dialogue if who == "C" and "AUTH" in what] == ["AUTH PLAIN ***"]
    with pytest.raises(RelayDown, match="535"):
        posted(mails(1), dataclasses.replace(address, password="wrong"))


def test_a_certificate_that_does_not_hold(settings: config.Settings, relay: tuple[RelayAddress, Hears]) -> None:
    with pytest.raises(RelayDown, match="certificate"):
        posted(mails(1), relay[0])
    assert relay[1].mails == []


@pytest.mark.skipif(shutil.which("smtp-sink") is None, reason="smtp-sink (Postfix) is not installed")
@pytest.mark.parametrize(
    ("flags", "fate"),
    [
        ([], "sent"),
        (["-p"], "sent"),  # without pipelining
        (["-e"], "sent"),  # without ESMTP
        (["-f", "RCPT"], "ours"),
        (["-r", "RCPT"], "later"),
        (["-f", "."], "ours"),
        (["-r", "."], "later"),
        (["-q", "DATA"], "lost"),
        (["-q", "."], "unknown"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else value,
)
def test_against_smtp_sink(settings: config.Settings, flags: list[str], fate: str) -> None:
    port = free_port()
    command = ["smtp-sink", *(["-u", "nobody"] if Path("/root").owner() == "root" else []), *flags]
    with subprocess.Popen([*command, f"127.0.0.1:{port}", "64"], stderr=subprocess.PIPE) as sink:
        try:
            for _ in range(100):
                with socket.socket() as probe:
                    if probe.connect_ex(("127.0.0.1", port)) == 0:
                        break
                time.sleep(0.02)
            shelf = posted(mails(3), RelayAddress("127.0.0.1", port, tls=Tls.OFF))
            assert shelf.fates[0] == fate, shelf.outcomes
            assert len(shelf.outcomes) + len(shelf.returned) + len(shelf.mails) == 3
        finally:
            sink.kill()
