"""What the catcher caught, as its recipients see it."""

from collections.abc import Iterator
from email import message_from_bytes, policy
from email.message import EmailMessage

from campaigns.demo.audience import Letter
from campaigns.demo.catcher import Box


class Postman:
    """Brings each mail that came after ``last`` once."""

    def __init__(self, box: Box) -> None:
        self._box = box
        newest = box.mails(limit=1)
        self._last = newest[0].id if newest else 0
        self.brought = 0

    def bring(self) -> Iterator[Letter]:
        """The mails that have come since the last call."""
        for caught in reversed(self._box.mails(after=self._last, limit=200)):
            self._last = max(self._last, caught.id)
            mail = self._box.mail(caught.id)
            if mail is not None:
                self.brought += 1
                yield letter(mail.recipient, mail.raw)


def letter(recipient: str, raw: bytes) -> Letter:
    message = message_from_bytes(raw, _class=EmailMessage, policy=policy.default)
    body = message.get_body(("html",))
    addresses = [part.strip(" <>") for part in str(message.get("List-Unsubscribe", "")).split(",")]
    one_click = next((address for address in addresses if address.startswith("http")), "")
    return Letter(recipient, body.get_content() if body else "", one_click)
