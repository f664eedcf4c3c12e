"""Reader of the mail catcher's mails for the simulated audience."""

import re
from collections.abc import Iterator
from email import message_from_bytes

from campaigns.demo.simulated_audience import ReceivedMail
from campaigns.mail_catcher.store import MailStore, StoredMail


class MailReader:
    """Returns each mail that arrived after its creation once."""

    def __init__(self, store: MailStore) -> None:
        self._store = store
        newest = store.mails(limit=1)
        self._last_id = self._first_id = newest[0].id if newest else 0
        self.read_count = 0

    def caught_mails(self) -> list[StoredMail]:
        """Return all mails since the creation, oldest first, without their raw bytes."""
        return self._store.mails(after=self._first_id, limit=1_000_000)[::-1]

    def read_new(self) -> Iterator[ReceivedMail]:
        """Yield the mails that arrived since the last call."""
        for listed in reversed(self._store.mails(after=self._last_id, limit=200)):
            self._last_id = max(self._last_id, listed.id)
            mail = self._store.mail(listed.id)
            if mail is not None:
                self.read_count += 1
                yield parse_mail(mail.recipient, mail.raw)


def parse_mail(recipient: str, raw: bytes) -> ReceivedMail:
    """Parse a caught mail.

    Uses the compat32 policy of the e-mail package, since the default policy parses every header into objects.
    """
    message = message_from_bytes(raw)
    html = next((part for part in message.walk() if part.get_content_type() == "text/html"), None)
    body = html.get_payload(decode=True) if html else b""
    unsubscribe_url = re.search(r"<(https?://[^>]+)>", message.get("List-Unsubscribe", ""))
    return ReceivedMail(
        recipient, body.decode() if isinstance(body, bytes) else "", unsubscribe_url[1] if unsubscribe_url else ""
    )
