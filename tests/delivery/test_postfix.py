"""Against a real Postfix: its smtpd and greylisting; skipped where there is none or we aren't root."""

import dataclasses
import os
import shutil
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from sqlalchemy import Engine, update

from campaigns import clock, config, db
from campaigns.delivery.deliver import deliver
from campaigns.delivery.models import Send, SendState
from campaigns.delivery.throttle import Brakes
from tests.delivery.mailing import sends, states
from tests.delivery.test_deliver import launched
from tests.delivery.test_tls import certificate, free_port

__all__ = ["certificate"]
DAEMONS = Path("/usr/lib/postfix/sbin")
pytestmark = pytest.mark.skipif(
    not (DAEMONS / "master").exists() or os.getuid() != 0, reason="Postfix is not installed, or this is not root"
)
SERVICES = """\
127.0.0.1:{port} inet n - n - - smtpd
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
smtpd_recipient_restrictions = {restrictions}
smtpd_tls_security_level = {tls}
smtpd_tls_chain_files = {certificate}
smtpd_tls_auth_only = yes
"""


@dataclass
class Greylisting:
    """A policy server (SMTPD_POLICY_README): whoever comes for the first time is asked to come again."""

    known: set[str] = field(default_factory=set)
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
            asked: dict[str, str] = {}
            for line in lines:
                name, _, value = line.decode().rstrip("\n").partition("=")
                if name:
                    asked[name] = value
                    continue
                recipient = asked.get("recipient", "")
                action = "DUNNO" if recipient in self.known else "DEFER_IF_PERMIT 4.2.0 Greylisted, come again"
                self.known.add(recipient)
                lines.write(f"action={action}\n\n".encode())
                lines.flush()


@dataclass
class Postfix:
    home: Path
    certificate: Path
    restrictions: str = "permit_mynetworks, reject"
    tls: str = "may"
    port: int = field(default_factory=free_port)

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
        (self.home / "etc" / "master.cf").write_text(SERVICES.format(port=self.port))
        subprocess.run(
            ["postfix", "-c", self.home / "etc", "check"], check=False, capture_output=True
        )  # makes the queue
        running = subprocess.Popen(
            [DAEMONS / "master", "-c", self.home / "etc", "-d"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
            start_new_session=True, env={**os.environ, "MAIL_CONFIG": str(self.home / "etc")},
        )  # fmt: skip
        for _ in range(200):
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", self.port)) == 0:
                    return running
            time.sleep(0.05)
        running.kill()
        log = self.home / "mail.log"
        raise AssertionError(f"Postfix did not start: {log.read_text()[-2000:] if log.exists() else ''}")

    def delivered(self, wanted: int) -> int:
        """How many mails it has passed on, once they are ``wanted``, or after some seconds."""
        log, found = self.home / "mail.log", 0
        for _ in range(100):
            found = log.read_text().count("status=sent (") if log.exists() else 0
            if found >= wanted:
                break
            time.sleep(0.05)
        return found


@pytest.fixture
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder that Postfix's own account may enter."""
    import tempfile

    with tempfile.TemporaryDirectory(prefix="kampania-px-") as made:
        Path(made).chmod(0o755)
        yield Path(made)


@pytest.fixture
def postfix(home: Path, certificate: Path, request: pytest.FixtureRequest) -> Iterator[Postfix]:
    options = getattr(request, "param", {})
    relay = Postfix(home / "one", certificate, **options)
    running = relay.start()
    yield relay
    os.killpg(running.pid, signal.SIGTERM)
    running.wait(10)


def test_mails_arrive(database: Engine, settings: config.Settings, postfix: Postfix) -> None:
    config.install(dataclasses.replace(settings, smtp_url=f"smtp://127.0.0.1:{postfix.port}?tls=off"))
    activity_id = launched(30)
    assert deliver(activity_id, 10.0) == 30
    assert states(activity_id) == {"sent": 30}
    assert postfix.delivered(30) == 30
    assert all("queued as" in send.reply for send in sends(activity_id))


def test_greylisted_ones_come_again(
    database: Engine, settings: config.Settings, home: Path, certificate: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Brakes, "BURST", 1000)
    policy, listener = Greylisting(), socket.create_server(("127.0.0.1", 0))
    threading.Thread(target=policy.serve, args=(listener,), daemon=True).start()
    check = f"check_policy_service inet:127.0.0.1:{listener.getsockname()[1]}, permit_mynetworks, reject"
    relay = Postfix(home / "grey", certificate, check)
    running = relay.start()
    try:
        config.install(dataclasses.replace(settings, smtp_url=f"smtp://127.0.0.1:{relay.port}?tls=off"))
        activity_id = launched(12)
        deliver(activity_id, 10.0)
        assert states(activity_id) == {"deferred": 12}
        with db.transaction() as session:
            session.execute(update(Send).where(Send.state == SendState.DEFERRED).values(due_at=clock.now()))
        deliver(activity_id, 10.0)
        assert states(activity_id) == {"sent": 12}
        assert {send.attempts for send in sends(activity_id)} == {2}
        assert relay.delivered(12) == 12
    finally:
        os.killpg(running.pid, signal.SIGTERM)
        running.wait(10)
        listener.close()
