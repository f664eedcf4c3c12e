"""Tests of bounce intake: SMTP listener, command, IMAP mailbox and settings page."""

import dataclasses
import smtplib
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from socketserver import StreamRequestHandler, ThreadingTCPServer

import pytest
from flask.testing import FlaskClient
from sqlalchemy import Engine, select

from campaigns import config, db
from campaigns.accounts.actor import SYSTEM
from campaigns.delivery.bounces.intake import imap as intake_imap
from campaigns.delivery.bounces.intake import maildir
from campaigns.delivery.bounces.intake import settings as intake_settings
from campaigns.delivery.bounces.intake.settings import MailboxInput
from campaigns.delivery.bounces.intake.smtp_listener import listening
from campaigns.delivery.bounces.models import FeedbackSource, InboundMessage, Mailbox
from campaigns.delivery.models import SendState
from campaigns.delivery.smtp.address import TlsMode
from campaigns.errors import ValidationFailed
from tests.conftest import FrozenClock
from tests.delivery.bounces.corpus import verp_of
from tests.delivery.bounces.test_record import bounce, mailed, send_of, settle, tallies

ROOT = Path(__file__).parents[3]


def test_from_the_listener_to_the_page(database: Engine, owner_client: FlaskClient, frozen: FrozenClock) -> None:
    activity_id, [one] = mailed()
    raw = bounce(one, returned="", to="x@example.org")  # The envelope recipient alone proves the send.
    with listening() as port, smtplib.SMTP("127.0.0.1", port, timeout=10) as server:
        server.sendmail("", [verp_of(one).upper()], raw.replace("\n", "\r\n"))
        assert maildir.waiting() == 1  # acknowledged means stored on disk
    settle()
    assert send_of(one).state is SendState.BOUNCED
    page = owner_client.get("/bounces").get_data(as_text=True)
    assert "Hard bounce: 1" in page
    assert "550 refused" in owner_client.get(f"/activities/{activity_id}/sends").get_data(as_text=True)


def test_lmtp_is_answered_for_each_recipient(settings: config.Settings) -> None:
    with listening() as port, smtplib.LMTP("127.0.0.1", port) as server:
        assert server.ehlo()[0] == 250
        server.mail("")
        for number in range(2):
            assert server.rcpt(f"b+{number}@bounces.example.org")[0] == 250
        assert server.data(b"Subject: x\r\n\r\nx\r\n")[0] == 250
        assert server.getreply()[0] == 250
    assert maildir.waiting() == 1


def test_what_cannot_be_kept_is_not_acknowledged(settings: config.Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError("disk full")

    monkeypatch.setattr(maildir, "keep", full)
    with listening() as port, smtplib.SMTP("127.0.0.1", port) as server, pytest.raises(smtplib.SMTPDataError) as told:
        server.sendmail("", ["x@example.org"], "Subject: x\r\n\r\nx\r\n")
    assert told.value.smtp_code == 451


def test_a_crash_between_row_and_file_counts_once(
    database: Engine, frozen: FrozenClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, [one] = mailed()
    maildir.keep(bounce(one).encode(), FeedbackSource.MTA)
    with monkeypatch.context() as broken:
        broken.setattr(Path, "unlink", lambda *_, **__: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            maildir.take_in()
    settle()
    assert maildir.waiting() == 0
    assert tallies() == {"hard": 1, "repeated": 1}


def test_the_command_takes_a_message_from_a_pipe(tmp_path: Path) -> None:
    import os

    told = subprocess.run(
        [sys.executable, "-m", "campaigns.cli", "bounce-pipe", "--recipient", "b+x@example.org"],
        input=b"Subject: returned\n\nwords\n",
        cwd=ROOT,
        capture_output=True,
        check=False,
        env={**os.environ, "KAMPANIA_VAR": str(tmp_path)},
    )
    assert (told.returncode, told.stderr) == (0, b"")
    [kept] = (tmp_path / "bounces" / "new").iterdir()
    assert kept.read_bytes() == b"Delivered-To: b+x@example.org\nSubject: returned\n\nwords\n"
    assert kept.suffix == ".command"


class _Imap(StreamRequestHandler):
    """The subset of RFC 9051 that the client uses."""

    def handle(self) -> None:
        server: _Server = self.server  # type: ignore[assignment]
        self.wfile.write(b"* OK ready\r\n")
        for line in self.rfile:
            tag, _, command = line.strip().partition(b" ")
            verb = command.upper()
            server.heard.append(command.decode("utf-8", "replace"))
            if verb == b"CAPABILITY":
                self.wfile.write(b"* CAPABILITY IMAP4rev1\r\n")
            elif verb.startswith(b"LOGIN") and b"right" not in command:
                self.wfile.write(tag + b" NO wrong password\r\n")
                continue
            elif verb.startswith((b"SELECT", b"EXAMINE")):
                self.wfile.write(b"* %d EXISTS\r\n* OK [UIDVALIDITY %d] ok\r\n" % (len(server.mails), server.validity))
            elif verb.startswith(b"UID SEARCH"):
                after = int(command.split()[3].split(b":")[0])
                found = [uid for uid in server.mails if uid >= after] or list(server.mails)[-1:]
                self.wfile.write(b"* SEARCH " + b" ".join(b"%d" % uid for uid in found) + b"\r\n")
            elif verb.startswith(b"UID FETCH"):
                raw = server.mails[int(command.split()[2])]
                self.wfile.write(b"* 1 FETCH (UID 1 BODY[]<0> {%d}\r\n" % len(raw) + raw + b")\r\n")
            elif verb.startswith(b"UID STORE"):
                server.flags.append(command.decode())
                if server.breaks:
                    server.breaks = False
                    return
            elif verb == b"LOGOUT":
                self.wfile.write(b"* BYE\r\n")
            self.wfile.write(tag + b" OK done\r\n")


class _Server(ThreadingTCPServer):
    daemon_threads = True
    validity = 7
    breaks = False

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Imap)
        self.mails: dict[int, bytes] = {}
        self.flags: list[str] = []
        self.heard: list[str] = []


@contextmanager
def imap() -> Iterator[_Server]:
    with _Server() as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def box(server: _Server, password: str = "right", *, remove: bool = False) -> MailboxInput:
    return MailboxInput("127.0.0.1", server.server_address[1], TlsMode.OFF, "bounces", password, delete_messages=remove)


def enter(words: MailboxInput) -> Mailbox:
    with db.transaction() as session:
        return intake_settings.set_mailbox(session, SYSTEM, words)


def test_a_mailbox_is_read_on_from_where_it_stood(
    database: Engine, settings: config.Settings, frozen: FrozenClock
) -> None:
    config.install(dataclasses.replace(settings, private_relays=True))
    _, ids = mailed(3)
    with imap() as server:
        server.mails = {n: bounce(one).encode() for n, one in enumerate(ids[:2], 10)}
        enter(box(server, remove=True))
        assert intake_imap.poll() == 2
        assert intake_imap.poll() == 0
        assert server.flags == [rf"UID STORE {n} +FLAGS (\Seen \Deleted)" for n in (10, 11)]
        server.mails[12] = bounce(ids[2]).encode()
        server.breaks = True  # connection lost after the commit, before the server replied
        assert intake_imap.poll() == 0
        with db.reading() as session:
            assert session.get_one(Mailbox, 1).error
        assert intake_imap.poll() == 0
        server.validity = 8  # A new UIDVALIDITY renumbers all messages: those fetched before are duplicates.
        assert intake_imap.poll() == 3
    settle()
    assert tallies() == {"hard": 3, "repeated": 3}
    with db.reading() as session:
        found = session.get_one(Mailbox, 1)
        assert (found.last_uid, found.uid_validity, found.error) == (12, 8, "")


def test_a_mailbox_that_refuses_says_why(database: Engine, settings: config.Settings, frozen: FrozenClock) -> None:
    config.install(dataclasses.replace(settings, private_relays=True))
    with imap() as server:
        found = enter(box(server, password="wrong"))
        assert "wrong password" in intake_imap.attempt(found).error
        good = enter(box(server))
        assert intake_imap.attempt(good).error == ""
        assert "right" not in good.secret
        assert not [each for each in server.heard if each.startswith("UID STORE")]
        with db.transaction() as session:  # a new host without the password: the stored password is cleared
            moved = intake_settings.set_mailbox(
                session, SYSTEM, MailboxInput("127.0.0.1", 1, TlsMode.OFF, "bounces", "")
            )
            assert moved.secret == ""


def test_private_mailboxes_need_leave(database: Engine, settings: config.Settings) -> None:
    with imap() as server:
        with pytest.raises(ValidationFailed):
            enter(box(server))
        there = Mailbox(id=1, host="127.0.0.1", port=server.server_address[1], tls=TlsMode.OFF, user="x", secret="")
        assert "private" in intake_imap.attempt(there).error
        assert server.heard == []


def test_tls_is_verified(database: Engine, settings: config.Settings) -> None:
    config.install(dataclasses.replace(settings, private_relays=True))
    with imap() as server:
        for tls in (TlsMode.IMPLICIT, TlsMode.VERIFY):
            there = Mailbox(id=1, host="127.0.0.1", port=server.server_address[1], tls=tls, user="x", secret="")
            assert intake_imap.attempt(there).error
        assert not [each for each in server.heard if each.startswith("LOGIN")]


def test_the_page_shows_and_throws_away_what_was_kept(
    database: Engine, owner_client: FlaskClient, coordinator_client: FlaskClient, frozen: FrozenClock
) -> None:
    maildir.keep(b"Subject: a <b>riddle</b>\n\n<script>x</script>\n", FeedbackSource.COMMAND)
    settle()
    with db.reading() as session:
        number = session.scalars(select(InboundMessage.id)).one()
    assert "a &lt;b&gt;riddle" in owner_client.get("/bounces").get_data(as_text=True)
    page = owner_client.get(f"/bounces/kept/{number}").get_data(as_text=True)
    assert "&lt;script&gt;x" in page
    assert coordinator_client.get("/bounces").status_code == 403
    assert owner_client.post(f"/bounces/kept/{number}/removal").status_code == 303
    assert owner_client.get(f"/bounces/kept/{number}").status_code == 404


@pytest.mark.parametrize(
    ("domain", "kept"), [("Bounces.Example.org", "bounces.example.org"), ("", None), ("a b", "old")]
)
def test_the_bounce_domain(database: Engine, owner_client: FlaskClient, domain: str, kept: str | None) -> None:
    from campaigns.accounts.organisation import organisation

    with db.transaction() as session:
        organisation(session).bounce_domain = "old"
    owner_client.post("/bounces/domain", data={"bounce_domain": domain})
    with db.reading() as session:
        assert organisation(session).bounce_domain == kept
