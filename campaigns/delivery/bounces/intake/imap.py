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
from campaigns.delivery.smtp.replies import printable
from campaigns.encryption import unseal

_SECONDS = 20.0
_PORTION = 200


class MailboxUnavailable(Exception):
    """The mailbox cannot be read; the text is shown to the user."""


@dataclass(frozen=True, slots=True)
class MailboxTest:
    """Result of a connection test: messages in the folder, or the error."""

    messages: int
    error: str = ""


def poll() -> int:
    """Fetch new messages and return their number. Owns its transactions; none is open during network access."""
    with db.reading() as session:
        found = settings.mailbox(session)
    if found is None or not found.active:
        return 0
    error, taken = "", 0
    try:
        with _opened(found) as server:
            taken = _take_over(server, found)
    except MailboxUnavailable as away:
        error = str(away)
    with db.transaction() as session:
        row = session.get(Mailbox, found.id, with_for_update=True)
        if row is not None:
            row.error, row.polled_at = error[:500], clock.now()
    return taken


def attempt(box: Mailbox) -> MailboxTest:
    """Log in and count the messages, read-only."""
    try:
        with _opened(box, read_only=True) as server:
            return MailboxTest(len(_uids(server, 0)))
    except MailboxUnavailable as away:
        return MailboxTest(0, str(away))


@contextmanager
def _opened(box: Mailbox, *, read_only: bool = False) -> Iterator[imaplib.IMAP4]:
    """Connect, log in and select the folder. Raises MailboxUnavailable."""
    try:
        password = unseal(box.secret, settings.MAILBOX_SEALED)
        server = _connected(box)
        try:
            server.login(box.user, password)
            state, _ = server.select(f'"{_quoted(box.folder)}"', readonly=read_only)
            if state != "OK":
                raise MailboxUnavailable("there is no such folder")
            yield server
        finally:
            _leave(server)
    except (OSError, ssl.SSLError, imaplib.IMAP4.error, UnicodeError, ValueError) as error:
        raise MailboxUnavailable(printable(str(error)) or type(error).__name__) from error


def _leave(server: imaplib.IMAP4) -> None:
    try:
        server.logout()
    except (OSError, imaplib.IMAP4.error):
        with suppress(OSError):
            server.shutdown()


def _quoted(folder: str) -> str:
    return folder.replace("\\", "\\\\").replace('"', '\\"')


def _connected(box: Mailbox) -> imaplib.IMAP4:
    address = _address(box.host, box.port)
    context = ssl.create_default_context()
    if box.tls is TlsMode.IMPLICIT:
        return _ImapTls(box.host, address, box.port, context)
    server = _ImapPlain(box.host, address, box.port)
    if box.tls is TlsMode.VERIFY:
        try:
            server.starttls(context)
        except BaseException:
            with suppress(OSError):
                server.shutdown()
            raise
    return server


class _ImapPlain(imaplib.IMAP4):
    """IMAP connection to a checked IP address; certificate checks use the host name."""

    def __init__(self, host: str, address: str, port: int) -> None:
        self._address = address
        super().__init__(host, port, _SECONDS)

    def _create_socket(self, timeout: float | None) -> socket.socket:
        return socket.create_connection((self._address, self.port), timeout)


class _ImapTls(_ImapPlain):
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


def _address(host: str, port: int) -> str:
    """Resolve the host once, so that the checked address is the one connected to. Raises MailboxUnavailable."""
    found = [str(each[4][0]) for each in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)]
    if not config.settings().private_relays and not all(ip_address(each).is_global for each in found):
        raise MailboxUnavailable("the host has a private address; PRIVATE_RELAYS=yes allows that")
    return found[0]


def _take_over(server: imaplib.IMAP4, box: Mailbox) -> int:
    validity = _validity(server)
    after = box.last_uid if validity == box.uid_validity else 0
    uids = _uids(server, after)[:_PORTION]
    for uid in uids:
        raw = _message(server, uid)
        with db.transaction() as session:
            if raw is not None:
                queue.keep(session, FeedbackSource.MAILBOX, maildir.digest_of(raw), raw, clock.now())
            row = session.get(Mailbox, box.id, with_for_update=True)
            if row is not None:
                row.uid_validity, row.last_uid = validity, uid
        server.uid("STORE", str(uid), "+FLAGS", r"(\Seen \Deleted)" if box.delete_messages else r"(\Seen)")
    if box.delete_messages and uids:
        server.expunge()
    return len(uids)


def _validity(server: imaplib.IMAP4) -> int:
    told = server.response("UIDVALIDITY")[1]
    return int(told[0]) if told and told[0] and bytes(told[0]).isdigit() else 0


def _uids(server: imaplib.IMAP4, after: int) -> list[int]:
    _, found = server.uid("SEARCH", f"UID {after + 1}:*")
    numbers = [int(each) for each in (found[0] or b"").split() if each.isdigit()] if found else []
    return sorted(number for number in numbers if number > after)  # RFC 3501: "n:*" always has the last UID.


def _message(server: imaplib.IMAP4, uid: int) -> bytes | None:
    """Fetch one message, at most its first 10 MB; None when it no longer exists."""
    _, found = server.uid("FETCH", str(uid), f"(BODY.PEEK[]<0.{maildir.LARGEST}>)")
    bodies = [each[1] for each in found or () if isinstance(each, tuple) and re.search(rb"BODY\[\]", each[0])]
    return bodies[0] if bodies else None
