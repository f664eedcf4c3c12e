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
from campaigns.delivery.relays.connection_test import attempt
from campaigns.delivery.smtp.address import RelayAddress, TlsMode
from campaigns.delivery.smtp.handshake import RelayUnavailable
from campaigns.delivery.throttling.rate_limits import DomainBackoff
from campaigns.delivery.worker.worker import deliver
from tests.delivery import certificates
from tests.delivery.fake_relay import mails, posted, serving
from tests.delivery.launched_activity import sends, states
from tests.delivery.smtp.test_tls import free_port
from tests.delivery.worker.test_worker import launched

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
SIGNING_IN = (
    "127.0.0.1:{port} inet n - n - - smtpd -o smtpd_sasl_auth_enable=yes -o smtpd_sasl_path=inet:127.0.0.1:{asked}"
    " -o smtpd_relay_restrictions=permit_sasl_authenticated,reject"
)
GREYLISTING = (
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
            threading.Thread(target=self._talk, args=(peer,), daemon=True).start()

    def _talk(self, peer: socket.socket) -> None:
        with peer, peer.makefile("rwb") as lines:
            hello = f"VERSION\t1\t1\nMECH\t{self.mechanism}\tplaintext\nSPID\t1\nCUID\t1\nCOOKIE\t00\nDONE\n"
            self._say(lines, hello)
            said: list[str] = []
            for line in lines:
                word, _, rest = line.decode().rstrip("\n").partition("\t")
                if word not in ("AUTH", "CONT"):
                    continue
                number, *words = rest.split("\t")
                said = said if word == "CONT" else []
                said += [each.removeprefix("resp=") for each in words if each.startswith("resp=") or word == "CONT"]
                self._say(lines, self._answer(number, [base64.b64decode(each).decode() for each in said]))

    def _answer(self, number: str, said: list[str]) -> str:
        if self.mechanism == "LOGIN" and len(said) < 2:
            return f"CONT\t{number}\t{base64.b64encode([b'Username:', b'Password:'][len(said)]).decode()}\n"
        right = said == ([USER, PASSWORD] if self.mechanism == "LOGIN" else [f"\0{USER}\0{PASSWORD}"])
        return f"OK\t{number}\tuser={USER}\n" if right else f"FAIL\t{number}\tuser={USER}\n"

    @staticmethod
    def _say(lines: BufferedRWPair, text: str) -> None:
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
        kept = self.home / "chain.pem"
        shutil.copy(self.certificate, kept)
        kept.chmod(0o600)
        values = {**dataclasses.asdict(self), "certificate": kept}
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
        if wait_for_door(self.port):
            return running
        running.kill()
        log = self.home / "mail.log"
        raise AssertionError(f"Postfix did not start: {log.read_text()[-2000:] if log.exists() else ''}")

    def delivered(self, wanted: int) -> int:
        """The number of delivered mails, as soon as there are at least ``expected``, or after a minute."""
        log, found = self.home / "mail.log", 0
        for _ in range(1200):
            found = log.read_text().count("status=sent (") if log.exists() else 0
            if found >= wanted:
                break
            time.sleep(0.05)
        return found


def wait_for_door(port: int) -> bool:
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
        certificates.make(Path(made) / "relay.pem")
        yield Path(made)


@contextmanager
def running(relay: Postfix) -> Iterator[Postfix]:
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
def postgrey(home: Path) -> Iterator[int]:
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
            wait_for_door(port)
            yield port
        finally:
            server.kill()  # It handles SIGTERM only after the next connection.


@pytest.fixture(scope="module")
def postfix(home: Path) -> Iterator[tuple[Postfix, dict[str, int]]]:
    """A Postfix for all tests of the module, and its extra ports: ``PLAIN`` and ``LOGIN`` (authentication required),
    ``grey`` (greylisting)."""
    ports = {name: free_port() for name in ("PLAIN", "LOGIN", "grey")}
    with serving(Passwords("PLAIN").serve) as plain, serving(Passwords("LOGIN").serve) as login, postgrey(home) as grey:
        services = (
            SIGNING_IN.format(port=ports["PLAIN"], asked=plain),
            SIGNING_IN.format(port=ports["LOGIN"], asked=login),
            GREYLISTING.format(port=ports["grey"], asked=grey),
        )
        with running(Postfix(home / "one", home / "relay.pem", services="\n".join(services))) as relay:
            yield relay, ports


def test_mails_arrive(database: Engine, settings: config.Settings, postfix: tuple[Postfix, dict[str, int]]) -> None:
    relay, _ = postfix
    config.install(dataclasses.replace(settings, smtp_url=f"smtp://127.0.0.1:{relay.port}?tls=off"))
    before, activity_id = relay.delivered(0), launched(30)
    assert deliver(activity_id, 60.0) == 30
    assert states(activity_id) == {"sent": 30}
    assert relay.delivered(before + 30) == before + 30
    assert all("queued as" in send.reply for send in sends(activity_id))


@pytest.mark.parametrize("mechanism", ["PLAIN", "LOGIN"])
def test_signing_in(
    settings: config.Settings,
    home: Path,
    postfix: tuple[Postfix, dict[str, int]],
    mechanism: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(home / "relay.pem"))
    me = RelayAddress("127.0.0.1", postfix[1][mechanism], USER, PASSWORD, TlsMode.VERIFY)
    trial = attempt(me)
    assert trial.error == ""
    assert dict(trial.extensions)["AUTH"] == mechanism
    assert [what for who, what in trial.dialogue if who == "S" and what.startswith("235")]
    told = " ".join(what for _, what in trial.dialogue)
    assert PASSWORD not in told
    assert base64.b64encode(PASSWORD.encode()).decode() not in told
    assert posted(mails(3), me).fates == ["sent"] * 3
    with pytest.raises(RelayUnavailable, match="535"):
        posted(mails(1), dataclasses.replace(me, password="wrong"))
    # Without authentication mails are rejected because of us, not because of the recipients.
    assert posted(mails(2), dataclasses.replace(me, user="", password="")).fates == ["sender_rejected"] * 2
    with pytest.raises(RelayUnavailable, match=r"50[0-9]|AUTH"):  # Offered only behind TLS.
        posted(mails(1), dataclasses.replace(me, tls=TlsMode.OFF))


@pytest.mark.skipif(shutil.which("postgrey") is None, reason="postgrey is not installed")
def test_greylisted_ones_come_again(
    database: Engine,
    settings: config.Settings,
    postfix: tuple[Postfix, dict[str, int]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(DomainBackoff, "BURST", 1000)
    relay, ports = postfix
    config.install(dataclasses.replace(settings, smtp_url=f"smtp://127.0.0.1:{ports['grey']}?tls=off"))
    before, activity_id = relay.delivered(0), launched(12)
    deliver(activity_id, 60.0)
    assert states(activity_id) == {"deferred": 12}
    assert all("reylisted" in send.reply for send in sends(activity_id))
    time.sleep(1.5)  # A retry within postgrey's delay would be greylisted again.
    with db.transaction() as session:
        session.execute(update(Send).where(Send.state == SendState.DEFERRED).values(due_at=clock.now()))
    deliver(activity_id, 60.0)
    # postgrey recognises the pair of sender and recipient, so the retry must have used the same envelope sender.
    assert states(activity_id) == {"sent": 12}
    assert {send.attempts for send in sends(activity_id)} == {2}
    assert relay.delivered(before + 12) == before + 12
