"""Reader of the mail catcher's mails for the simulated audience."""

import re
from collections.abc import Iterator
from email import message_from_bytes

from campaigns.demo.simulated_audience import ReceivedMail
from campaigns.mail_catcher.store import MailStore, StoredMail


class MailReader:
    """Returns each mail that arrived after its creation once."""

    def __init__(self, box: MailStore) -> None:
        self._box = box
        newest = box.mails(limit=1)
        self._last = self._first = newest[0].id if newest else 0
        self.brought = 0

    def caught(self) -> list[StoredMail]:
        """Return all mails since the creation, oldest first, without their raw bytes."""
        return self._box.mails(after=self._first, limit=1_000_000)[::-1]

    def bring(self) -> Iterator[ReceivedMail]:
        """Yield the mails that arrived since the last call."""
        for caught in reversed(self._box.mails(after=self._last, limit=200)):
            self._last = max(self._last, caught.id)
            mail = self._box.mail(caught.id)
            if mail is not None:
                self.brought += 1
                yield letter(mail.recipient, mail.raw)


def letter(recipient: str, raw: bytes) -> ReceivedMail:
    """Parse a caught mail.

    Uses the compat32 policy of the e-mail package, since the default policy parses every header into objects.
    """
    message = message_from_bytes(raw)
    html = next((part for part in message.walk() if part.get_content_type() == "text/html"), None)
    body = html.get_payload(decode=True) if html else b""
    one_click = re.search(r"<(https?://[^>]+)>", message.get("List-Unsubscribe", ""))
    return ReceivedMail(recipient, body.decode() if isinstance(body, bytes) else "", one_click[1] if one_click else "")
