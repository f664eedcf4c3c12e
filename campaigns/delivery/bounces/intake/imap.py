"""IMAP intake: polls the mailbox that receives bounces.

Each message is committed as a row together with its UID before it is flagged on the server. A message that is
fetched twice has the same digest and is counted once.
"""

import imaplib
import re
import socket
import ssl
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from ipaddress import ip_address

from campaigns import clock, config, db
from campaigns.delivery.bounces.intake import maildir, queue, settings
from campaigns.delivery.bounces.models import FeedbackSource, Mailbox
from campaigns.delivery.smtp.address import TlsMode
from campaigns.delivery.smtp.replies import printable_line
from campaigns.encryption import decrypt

_TIMEOUT_SECONDS = 20.0
_BATCH_SIZE = 200


class MailboxUnavailable(Exception):
    """The mailbox cannot be read; the text is shown to the user."""


@dataclass(frozen=True, slots=True)
class MailboxTest:
    """Result of a connection test: messages in the folder, or the error."""

    messages: int
    error: str = ""


def poll() -> int:
    """Fetch new messages and return their number. Owns its transactions; none is open during network access."""
    with db.read_only_session() as session:
        mailbox = settings.find_mailbox(session)
    if mailbox is None or not mailbox.active:
        return 0
    error, fetched = "", 0
    try:
        with _selected_folder(mailbox) as server:
            fetched = _fetch_new(server, mailbox)
    except MailboxUnavailable as away:
        error = str(away)
    with db.transaction() as session:
        row = session.get(Mailbox, mailbox.id, with_for_update=True)
        if row is not None:
            row.error, row.polled_at = error[:500], clock.now()
    return fetched


def check_connection(mailbox: Mailbox) -> MailboxTest:
    """Log in and count the messages, read-only."""
    try:
        with _selected_folder(mailbox, read_only=True) as server:
            return MailboxTest(len(_uids_after(server, 0)))
    except MailboxUnavailable as away:
        return MailboxTest(0, str(away))


@contextmanager
def _selected_folder(mailbox: Mailbox, *, read_only: bool = False) -> Iterator[imaplib.IMAP4]:
    """Connect, log in and select the folder. Raises MailboxUnavailable."""
    try:
        password = decrypt(mailbox.secret, settings.MAILBOX_SECRET_PURPOSE)
        server = _connect(mailbox)
        try:
            server.login(mailbox.user, password)
            state, _ = server.select(f'"{_escape_folder(mailbox.folder)}"', readonly=read_only)
            if state != "OK":
                raise MailboxUnavailable("there is no such folder")
            yield server
        finally:
            _logout(server)
    except (OSError, ssl.SSLError, imaplib.IMAP4.error, UnicodeError, ValueError) as error:
        raise MailboxUnavailable(printable_line(str(error)) or type(error).__name__) from error


def _logout(server: imaplib.IMAP4) -> None:
    try:
        server.logout()
    except (OSError, imaplib.IMAP4.error):
        with suppress(OSError):
            server.shutdown()


def _escape_folder(folder: str) -> str:
    return folder.replace("\\", "\\\\").replace('"', '\\"')


def _connect(mailbox: Mailbox) -> imaplib.IMAP4:
    address = _resolve_host(mailbox.host, mailbox.port)
    context = ssl.create_default_context()
    if mailbox.tls is TlsMode.IMPLICIT:
        return _ImapTlsConnection(mailbox.host, address, mailbox.port, context)
    server = _ImapConnection(mailbox.host, address, mailbox.port)
    if mailbox.tls is TlsMode.VERIFY:
        try:
            server.starttls(context)
        except BaseException:
            with suppress(OSError):
                server.shutdown()
            raise
    return server


class _ImapConnection(imaplib.IMAP4):
    """IMAP connection to a checked IP address; certificate checks use the host name."""

    def __init__(self, host: str, address: str, port: int) -> None:
        self._address = address
        super().__init__(host, port, _TIMEOUT_SECONDS)

    def _create_socket(self, timeout: float | None) -> socket.socket:
        return socket.create_connection((self._address, self.port), timeout)


class _ImapTlsConnection(_ImapConnection):
    def __init__(self, host: str, address: str, port: int, context: ssl.SSLContext) -> None:
        self._context = context
        super().__init__(host, address, port)

    def _create_socket(self, timeout: float | None) -> socket.socket:
        plain = super()._create_socket(timeout)
        try:
            return self._context.wrap_socket(plain, server_hostname=self.host)
        except BaseException:
            plain.close()
            raise


def _resolve_host(host: str, port: int) -> str:
    """Resolve the host once, so that the checked address is the one connected to. Raises MailboxUnavailable."""
    addresses = [str(each[4][0]) for each in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)]
    if not config.settings().private_relays and not all(ip_address(each).is_global for each in addresses):
        raise MailboxUnavailable("the host has a private address; PRIVATE_RELAYS=yes allows that")
    return addresses[0]


def _fetch_new(server: imaplib.IMAP4, mailbox: Mailbox) -> int:
    validity = _uid_validity(server)
    after = mailbox.last_uid if validity == mailbox.uid_validity else 0
    uids = _uids_after(server, after)[:_BATCH_SIZE]
    for uid in uids:
        raw = _fetch_message(server, uid)
        with db.transaction() as session:
            if raw is not None:
                queue.enqueue(session, FeedbackSource.MAILBOX, maildir.mail_digest(raw), raw, clock.now())
            row = session.get(Mailbox, mailbox.id, with_for_update=True)
            if row is not None:
                row.uid_validity, row.last_uid = validity, uid
        server.uid("STORE", str(uid), "+FLAGS", r"(\Seen \Deleted)" if mailbox.delete_messages else r"(\Seen)")
    if mailbox.delete_messages and uids:
        server.expunge()
    return len(uids)


def _uid_validity(server: imaplib.IMAP4) -> int:
    response = server.response("UIDVALIDITY")[1]
    return int(response[0]) if response and response[0] and bytes(response[0]).isdigit() else 0


def _uids_after(server: imaplib.IMAP4, after: int) -> list[int]:
    _, response = server.uid("SEARCH", f"UID {after + 1}:*")
    numbers = [int(each) for each in (response[0] or b"").split() if each.isdigit()] if response else []
    return sorted(number for number in numbers if number > after)  # RFC 3501: "n:*" always has the last UID.


def _fetch_message(server: imaplib.IMAP4, uid: int) -> bytes | None:
    """Fetch one message, at most its first 10 MB; None when it no longer exists."""
    _, response = server.uid("FETCH", str(uid), f"(BODY.PEEK[]<0.{maildir.MAX_MAIL_BYTES}>)")
    bodies = [each[1] for each in response or () if isinstance(each, tuple) and re.search(rb"BODY\[\]", each[0])]
    return bodies[0] if bodies else None
