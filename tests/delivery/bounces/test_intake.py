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
from campaigns.delivery.bounces.intake.smtp_listener import running_listener
from campaigns.delivery.bounces.models import FeedbackSource, InboundMessage, Mailbox
from campaigns.delivery.models import SendState
from campaigns.delivery.smtp.address import TlsMode
from campaigns.errors import ValidationFailed
from tests.conftest import FrozenClock
from tests.delivery.bounces.corpus import envelope_sender
from tests.delivery.bounces.test_record import counts_by_type, dsn_for, make_sends, process_reports, send_of

ROOT = Path(__file__).parents[3]


def test_listener_mail_appears_on_the_page(database: Engine, owner_client: FlaskClient, frozen: FrozenClock) -> None:
    activity_id, [send_id] = make_sends()
    raw = dsn_for(send_id, with_returned_mail="", to="x@example.org")  # The envelope recipient alone proves the send.
    with running_listener() as port, smtplib.SMTP("127.0.0.1", port, timeout=10) as server:
        server.sendmail("", [envelope_sender(send_id).upper()], raw.replace("\n", "\r\n"))
        assert maildir.count_waiting() == 1  # acknowledged means stored on disk
    process_reports()
    assert send_of(send_id).state is SendState.BOUNCED
    page = owner_client.get("/bounces").get_data(as_text=True)
    assert "Hard bounce: 1" in page
    assert "550 refused" in owner_client.get(f"/activities/{activity_id}/sends").get_data(as_text=True)


def test_lmtp_is_answered_for_each_recipient(settings: config.Settings) -> None:
    with running_listener() as port, smtplib.LMTP("127.0.0.1", port) as server:
        assert server.ehlo()[0] == 250
        server.mail("")
        for number in range(2):
            assert server.rcpt(f"b+{number}@bounces.example.org")[0] == 250
        assert server.data(b"Subject: x\r\n\r\nx\r\n")[0] == 250
        assert server.getreply()[0] == 250
    assert maildir.count_waiting() == 1


def test_a_mail_that_cannot_be_stored_is_not_acknowledged(
    settings: config.Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError("disk full")

    monkeypatch.setattr(maildir, "store_mail", full)
    with (
        running_listener() as port,
        smtplib.SMTP("127.0.0.1", port) as server,
        pytest.raises(smtplib.SMTPDataError) as error,
    ):
        server.sendmail("", ["x@example.org"], "Subject: x\r\n\r\nx\r\n")
    assert error.value.smtp_code == 451


def test_a_crash_between_row_and_file_counts_once(
    database: Engine, frozen: FrozenClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, [send_id] = make_sends()
    maildir.store_mail(dsn_for(send_id).encode(), FeedbackSource.MTA)
    with monkeypatch.context() as broken:
        broken.setattr(Path, "unlink", lambda *_, **__: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            maildir.move_to_queue()
    process_reports()
    assert maildir.count_waiting() == 0
    assert counts_by_type() == {"hard": 1, "repeated": 1}


def test_the_command_stores_a_message_from_stdin(tmp_path: Path) -> None:
    import os

    completed = subprocess.run(
        [sys.executable, "-m", "campaigns.cli", "bounce-pipe", "--recipient", "b+x@example.org"],
        input=b"Subject: returned\n\nwords\n",
        cwd=ROOT,
        capture_output=True,
        check=False,
        env={**os.environ, "KAMPANIA_VAR": str(tmp_path)},
    )
    assert (completed.returncode, completed.stderr) == (0, b"")
    [stored] = (tmp_path / "bounces" / "new").iterdir()
    assert stored.read_bytes() == b"Delivered-To: b+x@example.org\nSubject: returned\n\nwords\n"
    assert stored.suffix == ".command"


class _ImapHandler(StreamRequestHandler):
    """The subset of RFC 9051 that the client uses."""

    def handle(self) -> None:
        server: _ImapServer = self.server  # type: ignore[assignment]
        self.wfile.write(b"* OK ready\r\n")
        for line in self.rfile:
            tag, _, command = line.strip().partition(b" ")
            upper = command.upper()
            server.commands.append(command.decode("utf-8", "replace"))
            if upper == b"CAPABILITY":
                self.wfile.write(b"* CAPABILITY IMAP4rev1\r\n")
            elif upper.startswith(b"LOGIN") and b"right" not in command:
                self.wfile.write(tag + b" NO wrong password\r\n")
                continue
            elif upper.startswith((b"SELECT", b"EXAMINE")):
                self.wfile.write(
                    b"* %d EXISTS\r\n* OK [UIDVALIDITY %d] ok\r\n" % (len(server.mails), server.uid_validity)
                )
            elif upper.startswith(b"UID SEARCH"):
                after = int(command.split()[3].split(b":")[0])
                uids = [uid for uid in server.mails if uid >= after] or list(server.mails)[-1:]
                self.wfile.write(b"* SEARCH " + b" ".join(b"%d" % uid for uid in uids) + b"\r\n")
            elif upper.startswith(b"UID FETCH"):
                raw = server.mails[int(command.split()[2])]
                self.wfile.write(b"* 1 FETCH (UID 1 BODY[]<0> {%d}\r\n" % len(raw) + raw + b")\r\n")
            elif upper.startswith(b"UID STORE"):
                server.flags.append(command.decode())
                if server.drops_connection:
                    server.drops_connection = False
                    return
            elif upper == b"LOGOUT":
                self.wfile.write(b"* BYE\r\n")
            self.wfile.write(tag + b" OK done\r\n")


class _ImapServer(ThreadingTCPServer):
    daemon_threads = True
    uid_validity = 7
    drops_connection = False

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _ImapHandler)
        self.mails: dict[int, bytes] = {}
        self.flags: list[str] = []
        self.commands: list[str] = []


@contextmanager
def running_imap_server() -> Iterator[_ImapServer]:
    with _ImapServer() as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def mailbox_input(server: _ImapServer, password: str = "right", *, remove: bool = False) -> MailboxInput:
    return MailboxInput("127.0.0.1", server.server_address[1], TlsMode.OFF, "bounces", password, delete_messages=remove)


def save_mailbox(values: MailboxInput) -> Mailbox:
    with db.transaction() as session:
        return intake_settings.set_mailbox(session, SYSTEM, values)


def test_mailbox_polling_resumes_after_the_last_uid(
    database: Engine, settings: config.Settings, frozen: FrozenClock
) -> None:
    config.set_settings(dataclasses.replace(settings, private_relays=True))
    _, ids = make_sends(3)
    with running_imap_server() as server:
        server.mails = {n: dsn_for(one).encode() for n, one in enumerate(ids[:2], 10)}
        save_mailbox(mailbox_input(server, remove=True))
        assert intake_imap.poll() == 2
        assert intake_imap.poll() == 0
        assert server.flags == [rf"UID STORE {n} +FLAGS (\Seen \Deleted)" for n in (10, 11)]
        server.mails[12] = dsn_for(ids[2]).encode()
        server.drops_connection = True  # connection lost after the commit, before the server replied
        assert intake_imap.poll() == 0
        with db.read_only_session() as session:
            assert session.get_one(Mailbox, 1).error
        assert intake_imap.poll() == 0
        server.uid_validity = 8  # A new UIDVALIDITY renumbers all messages: those fetched before are duplicates.
        assert intake_imap.poll() == 3
    process_reports()
    assert counts_by_type() == {"hard": 3, "repeated": 3}
    with db.read_only_session() as session:
        mailbox = session.get_one(Mailbox, 1)
        assert (mailbox.last_uid, mailbox.uid_validity, mailbox.error) == (12, 8, "")


def test_a_failed_login_is_reported(database: Engine, settings: config.Settings, frozen: FrozenClock) -> None:
    config.set_settings(dataclasses.replace(settings, private_relays=True))
    with running_imap_server() as server:
        wrong = save_mailbox(mailbox_input(server, password="wrong"))
        assert "wrong password" in intake_imap.check_connection(wrong).error
        good = save_mailbox(mailbox_input(server))
        assert intake_imap.check_connection(good).error == ""
        assert "right" not in good.secret
        assert not [each for each in server.commands if each.startswith("UID STORE")]
        with db.transaction() as session:  # a new host without the password: the stored password is cleared
            moved = intake_settings.set_mailbox(
                session, SYSTEM, MailboxInput("127.0.0.1", 1, TlsMode.OFF, "bounces", "")
            )
            assert moved.secret == ""


def test_private_mailbox_hosts_need_permission(database: Engine, settings: config.Settings) -> None:
    with running_imap_server() as server:
        with pytest.raises(ValidationFailed):
            save_mailbox(mailbox_input(server))
        mailbox = Mailbox(id=1, host="127.0.0.1", port=server.server_address[1], tls=TlsMode.OFF, user="x", secret="")
        assert "private" in intake_imap.check_connection(mailbox).error
        assert server.commands == []


def test_tls_is_verified(database: Engine, settings: config.Settings) -> None:
    config.set_settings(dataclasses.replace(settings, private_relays=True))
    with running_imap_server() as server:
        for tls in (TlsMode.IMPLICIT, TlsMode.VERIFY):
            mailbox = Mailbox(id=1, host="127.0.0.1", port=server.server_address[1], tls=tls, user="x", secret="")
            assert intake_imap.check_connection(mailbox).error
        assert not [each for each in server.commands if each.startswith("LOGIN")]


def test_the_page_shows_and_discards_kept_messages(
    database: Engine, owner_client: FlaskClient, coordinator_client: FlaskClient, frozen: FrozenClock
) -> None:
    maildir.store_mail(b"Subject: a <b>riddle</b>\n\n<script>x</script>\n", FeedbackSource.COMMAND)
    process_reports()
    with db.read_only_session() as session:
        message_id = session.scalars(select(InboundMessage.id)).one()
    assert "a &lt;b&gt;riddle" in owner_client.get("/bounces").get_data(as_text=True)
    page = owner_client.get(f"/bounces/kept/{message_id}").get_data(as_text=True)
    assert "&lt;script&gt;x" in page
    assert coordinator_client.get("/bounces").status_code == 403
    assert owner_client.post(f"/bounces/kept/{message_id}/removal").status_code == 303
    assert owner_client.get(f"/bounces/kept/{message_id}").status_code == 404


@pytest.mark.parametrize(
    ("domain", "expected"), [("Bounces.Example.org", "bounces.example.org"), ("", None), ("a b", "old")]
)
def test_the_bounce_domain(database: Engine, owner_client: FlaskClient, domain: str, expected: str | None) -> None:
    from campaigns.accounts.organisation import organisation

    with db.transaction() as session:
        organisation(session).bounce_domain = "old"
    owner_client.post("/bounces/domain", data={"bounce_domain": domain})
    with db.read_only_session() as session:
        assert organisation(session).bounce_domain == expected
