"""Tests against a real Postfix: delivery, authentication, greylisting. Skipped without Postfix or root."""

import base64
import dataclasses
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from io import BufferedRWPair
from pathlib import Path

import pytest
from sqlalchemy import Engine, update

from campaigns import clock, config, db
from campaigns.delivery.models import Send, SendState
from campaigns.delivery.relays.connection_test import try_connection
from campaigns.delivery.smtp.address import RelayAddress, TlsMode
from campaigns.delivery.smtp.handshake import RelayUnavailable
from campaigns.delivery.throttling.rate_limits import DomainBackoff
from campaigns.delivery.worker.worker import deliver
from tests.delivery import certificates
from tests.delivery.fake_relay import make_mails, run_server, send_mails
from tests.delivery.launched_activity import count_states, load_sends
from tests.delivery.smtp.test_tls import free_port
from tests.delivery.worker.test_worker import launch_mailing

DAEMONS = Path("/usr/lib/postfix/sbin")
pytestmark = pytest.mark.skipif(
    not (DAEMONS / "master").exists() or os.getuid() != 0, reason="Postfix is not installed, or this is not root"
)
SERVICES = """\
127.0.0.1:{port} inet n - n - - smtpd
{services}
cleanup unix n - n - 0 cleanup
qmgr unix n - n 300 1 qmgr
proxymap unix - - n - - proxymap
tlsmgr unix - - n 1000? 1 tlsmgr
rewrite unix - - n - - trivial-rewrite
bounce unix - - n - 0 bounce
defer unix - - n - 0 bounce
trace unix - - n - 0 bounce
anvil unix - - n - 1 anvil
discard unix - - n - - discard
error unix - - n - - error
retry unix - - n - - error
postlog unix-dgram n - n - 1 postlogd
"""
OPTIONS = """\
compatibility_level = 3.6
queue_directory = {home}/queue
data_directory = {home}/data
maillog_file = {home}/mail.log
maillog_file_prefixes = {home}
mail_owner = postfix
setgid_group = postdrop
myhostname = relay.test
mydestination =
inet_interfaces = 127.0.0.1
mynetworks = 127.0.0.0/8
default_transport = discard:
local_transport = discard:
local_recipient_maps =
alias_maps =
smtpd_relay_restrictions = permit_mynetworks, reject
smtpd_tls_security_level = {tls}
smtpd_tls_chain_files = {certificate}
smtpd_tls_auth_only = yes
smtpd_sasl_type = dovecot
"""
AUTH_SERVICE = (
    "127.0.0.1:{port} inet n - n - - smtpd -o smtpd_sasl_auth_enable=yes -o smtpd_sasl_path=inet:127.0.0.1:{asked}"
    " -o smtpd_relay_restrictions=permit_sasl_authenticated,reject"
)
GREYLISTING_SERVICE = (
    "127.0.0.1:{port} inet n - n - - smtpd -o smtpd_relay_restrictions=check_policy_service,inet:127.0.0.1:{asked},"
    "permit_mynetworks,reject"
)
USER, PASSWORD = "mailer@example.org", "pässword, with = and \\"


@dataclass
class Passwords:
    """A fake Dovecot authentication server (protocol version 1.1) with one user and one mechanism."""

    mechanism: str
    port: int = 0

    def serve(self, listener: socket.socket) -> None:
        while True:
            try:
                peer, _ = listener.accept()
            except OSError:
                return
            threading.Thread(target=self._serve_client, args=(peer,), daemon=True).start()

    def _serve_client(self, peer: socket.socket) -> None:
        with peer, peer.makefile("rwb") as lines:
            hello = f"VERSION\t1\t1\nMECH\t{self.mechanism}\tplaintext\nSPID\t1\nCUID\t1\nCOOKIE\t00\nDONE\n"
            self._write(lines, hello)
            responses: list[str] = []
            for line in lines:
                command, _, rest = line.decode().rstrip("\n").partition("\t")
                if command not in ("AUTH", "CONT"):
                    continue
                number, *words = rest.split("\t")
                responses = responses if command == "CONT" else []
                responses += [
                    each.removeprefix("resp=") for each in words if each.startswith("resp=") or command == "CONT"
                ]
                self._write(lines, self._reply(number, [base64.b64decode(each).decode() for each in responses]))

    def _reply(self, number: str, responses: list[str]) -> str:
        if self.mechanism == "LOGIN" and len(responses) < 2:
            return f"CONT\t{number}\t{base64.b64encode([b'Username:', b'Password:'][len(responses)]).decode()}\n"
        is_correct = responses == ([USER, PASSWORD] if self.mechanism == "LOGIN" else [f"\0{USER}\0{PASSWORD}"])
        return f"OK\t{number}\tuser={USER}\n" if is_correct else f"FAIL\t{number}\tuser={USER}\n"

    @staticmethod
    def _write(lines: BufferedRWPair, text: str) -> None:
        lines.write(text.encode())
        lines.flush()


@dataclass
class Postfix:
    home: Path
    certificate: Path
    tls: str = "may"
    port: int = field(default_factory=free_port)
    services: str = ""
    """Additional lines of master.cf."""

    def start(self) -> subprocess.Popen[bytes]:
        (self.home / "etc").mkdir(parents=True)
        for name in ("queue", "data"):
            (self.home / name).mkdir()
        shutil.chown(self.home / "data", "postfix")
        certificate_copy = self.home / "chain.pem"
        shutil.copy(self.certificate, certificate_copy)
        certificate_copy.chmod(0o600)
        values = {**dataclasses.asdict(self), "certificate": certificate_copy}
        (self.home / "etc" / "main.cf").write_text(OPTIONS.format(**values))
        (self.home / "etc" / "master.cf").write_text(SERVICES.format(**values))
        subprocess.run(
            ["postfix", "-c", self.home / "etc", "check"], check=False, capture_output=True
        )  # makes the queue
        running = subprocess.Popen(
            [DAEMONS / "master", "-c", self.home / "etc", "-d"],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
            env={**os.environ, "MAIL_CONFIG": str(self.home / "etc")},
        )
        if wait_for_port(self.port):
            return running
        running.kill()
        log = self.home / "mail.log"
        raise AssertionError(f"Postfix did not start: {log.read_text()[-2000:] if log.exists() else ''}")

    def delivered(self, expected: int) -> int:
        """The number of delivered mails, as soon as there are at least ``expected``, or after a minute."""
        log, delivered = self.home / "mail.log", 0
        for _ in range(1200):
            delivered = log.read_text().count("status=sent (") if log.exists() else 0
            if delivered >= expected:
                break
            time.sleep(0.05)
        return delivered


def wait_for_port(port: int) -> bool:
    """Wait up to a minute until the port accepts connections. Returns whether it does."""
    for _ in range(1200):
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return True
        time.sleep(0.05)
    return False


@pytest.fixture(scope="module")
def home() -> Iterator[Path]:
    """A directory with a certificate, readable by Postfix's user."""
    with tempfile.TemporaryDirectory(prefix="kampania-px-") as made:
        Path(made).chmod(0o755)
        certificates.make_certificate(Path(made) / "relay.pem")
        yield Path(made)


@contextmanager
def run_postfix(relay: Postfix) -> Iterator[Postfix]:
    master = relay.start()
    try:
        yield relay
    finally:
        os.killpg(master.pid, signal.SIGTERM)
        try:
            master.wait(60)
        except subprocess.TimeoutExpired:
            os.killpg(master.pid, signal.SIGKILL)
            master.wait()


@contextmanager
def run_postgrey(home: Path) -> Iterator[int]:
    """Run postgrey with a delay of one second. Yields its port; an unused port when postgrey is not installed."""
    port = free_port()
    if shutil.which("postgrey") is None:
        yield port
        return
    (home / "postgrey").mkdir()
    command = [
        "postgrey",
        f"--inet=127.0.0.1:{port}",
        "--delay=1",
        f"--dbdir={home / 'postgrey'}",
        "--user=root",
        "--group=root",
        "--whitelist-clients=/dev/null",
        "--whitelist-recipients=/dev/null",
    ]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as server:
        try:
            wait_for_port(port)
            yield port
        finally:
            server.kill()  # It handles SIGTERM only after the next connection.


@pytest.fixture(scope="module")
def postfix(home: Path) -> Iterator[tuple[Postfix, dict[str, int]]]:
    """A Postfix for all tests of the module, and its extra ports: ``PLAIN`` and ``LOGIN`` (authentication required),
    ``grey`` (greylisting)."""
    ports = {name: free_port() for name in ("PLAIN", "LOGIN", "grey")}
    with (
        run_server(Passwords("PLAIN").serve) as plain,
        run_server(Passwords("LOGIN").serve) as login,
        run_postgrey(home) as grey,
    ):
        services = (
            AUTH_SERVICE.format(port=ports["PLAIN"], asked=plain),
            AUTH_SERVICE.format(port=ports["LOGIN"], asked=login),
            GREYLISTING_SERVICE.format(port=ports["grey"], asked=grey),
        )
        with run_postfix(Postfix(home / "one", home / "relay.pem", services="\n".join(services))) as relay:
            yield relay, ports


def test_delivery(database: Engine, settings: config.Settings, postfix: tuple[Postfix, dict[str, int]]) -> None:
    relay, _ = postfix
    config.set_settings(dataclasses.replace(settings, smtp_url=f"smtp://127.0.0.1:{relay.port}?tls=off"))
    before, activity_id = relay.delivered(0), launch_mailing(30)
    assert deliver(activity_id, 60.0) == 30
    assert count_states(activity_id) == {"sent": 30}
    assert relay.delivered(before + 30) == before + 30
    assert all("queued as" in send.reply for send in load_sends(activity_id))


@pytest.mark.parametrize("mechanism", ["PLAIN", "LOGIN"])
def test_authentication(
    settings: config.Settings,
    home: Path,
    postfix: tuple[Postfix, dict[str, int]],
    mechanism: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(home / "relay.pem"))
    address = RelayAddress("127.0.0.1", postfix[1][mechanism], USER, PASSWORD, TlsMode.VERIFY)
    result = try_connection(address)
    assert result.error == ""
    assert dict(result.extensions)["AUTH"] == mechanism
    assert [what for who, what in result.dialogue if who == "S" and what.startswith("235")]
    dialogue = " ".join(what for _, what in result.dialogue)
    assert PASSWORD not in dialogue
    assert base64.b64encode(PASSWORD.encode()).decode() not in dialogue
    assert send_mails(make_mails(3), address).statuses == ["sent"] * 3
    with pytest.raises(RelayUnavailable, match="535"):
        send_mails(make_mails(1), dataclasses.replace(address, password="wrong"))
    # Without authentication mails are rejected because of us, not because of the recipients.
    assert (
        send_mails(make_mails(2), dataclasses.replace(address, user="", password="")).statuses
        == ["sender_rejected"] * 2
    )
    with pytest.raises(RelayUnavailable, match=r"50[0-9]|AUTH"):  # Offered only behind TLS.
        send_mails(make_mails(1), dataclasses.replace(address, tls=TlsMode.OFF))


@pytest.mark.skipif(shutil.which("postgrey") is None, reason="postgrey is not installed")
def test_greylisted_mails_are_retried(
    database: Engine,
    settings: config.Settings,
    postfix: tuple[Postfix, dict[str, int]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(DomainBackoff, "THRESHOLD", 1000)
    relay, ports = postfix
    config.set_settings(dataclasses.replace(settings, smtp_url=f"smtp://127.0.0.1:{ports['grey']}?tls=off"))
    before, activity_id = relay.delivered(0), launch_mailing(12)
    deliver(activity_id, 60.0)
    assert count_states(activity_id) == {"deferred": 12}
    assert all("reylisted" in send.reply for send in load_sends(activity_id))
    time.sleep(1.5)  # A retry within postgrey's delay would be greylisted again.
    with db.transaction() as session:
        session.execute(update(Send).where(Send.state == SendState.DEFERRED).values(due_at=clock.now()))
    deliver(activity_id, 60.0)
    # postgrey recognises the pair of sender and recipient, so the retry must have used the same envelope sender.
    assert count_states(activity_id) == {"sent": 12}
    assert {send.attempts for send in load_sends(activity_id)} == {2}
    assert relay.delivered(before + 12) == before + 12
