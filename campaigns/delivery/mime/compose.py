"""Composition of one recipient's mail: envelope, headers, text and HTML parts, DKIM signatures.

It works on rows that were loaded before and never queries the database, so it runs outside any transaction.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import lru_cache
from typing import Protocol

from campaigns import outbox
from campaigns.accounts.models import Organisation
from campaigns.audience.models import Contact
from campaigns.content import system_mail
from campaigns.content.models import MessageVersion
from campaigns.content.rendering import renderer
from campaigns.content.rendering.links import personalise
from campaigns.content.rendering.renderer import MergeContact
from campaigns.delivery.mime import dkim, mail_template, verp
from campaigns.delivery.mime.dkim import Signer
from campaigns.delivery.mime.envelope import OutgoingMail
from campaigns.delivery.mime.headers import ascii_domain, date, mailbox, shown, words
from campaigns.delivery.mime.mail_template import MailTemplate
from campaigns.delivery.mime.quoted_printable import quoted, without_blank_runs
from campaigns.delivery.mime.segment_renderer import ENGAGEMENT, UNSUBSCRIBE, parts, token
from campaigns.outbox import OutboxMail
from campaigns.planning.models import Activity
from campaigns.tokens import Purpose, mint_sends

TEST_PREFIX = "[Test] "
_PURPOSES = (Purpose.UNSUBSCRIBE, Purpose.MESSAGE_ID, Purpose.BOUNCE, Purpose.ENGAGEMENT)


class SendRef(Protocol):
    """The columns of a send that composing and recording need."""

    @property
    def id(self) -> int: ...
    @property
    def address(self) -> str: ...
    @property
    def attempts(self) -> int: ...


@dataclass(slots=True)
class MailContext:
    """Everything that the mail of one send is composed from."""

    send: SendRef
    activity: Activity
    organisation: Organisation
    version: MessageVersion | None = None
    contact: MergeContact | None = None
    outbox: OutboxMail | None = None
    trackable: bool = False
    plate: MailTemplate | None = None
    """The template shared by the mails of a batch; built for this mail when None."""
    signers: Sequence[Signer] = ()


def compose(letter: MailContext, at: datetime) -> OutgoingMail:
    """Compose and sign the mail. Every attempt gives the same mail except for its date.

    Raises ValueError or a KampaniaError when the mail cannot be composed for this recipient.
    """
    mail = _composed(letter, at)
    return (
        replace(mail, content=dkim.signed(mail.content, letter.signers, at, canonical=True)) if letter.signers else mail
    )


def _composed(letter: MailContext, at: datetime) -> OutgoingMail:
    if letter.version is None and letter.outbox is not None:
        return _system(letter, letter.outbox, at)
    if letter.version is None:
        raise ValueError("a send without content")
    plate = letter.plate or mail_template.plate(letter.version, letter.activity, letter.organisation, letter.trackable)
    return _printed(letter, plate, at)


def _printed(letter: MailContext, plate: MailTemplate, at: datetime) -> OutgoingMail:
    """Compose a mail of a message version.

    With tracking consent it has personal links and a pixel. Without it there is no pixel, and the links carry the
    token of the activity as a whole (sequence number 0); links of a built-in activity then lead directly to their
    targets.
    """
    send_id, address = letter.send.id, letter.send.address
    somebody = letter.contact or Contact(email=address)  # a test mail to an address without a contact
    unsubscribe, message_id, bounce, engagement = mint_sends(send_id, *_PURPOSES)
    recipient = ascii_domain(address)
    fields = renderer.contact_fields(somebody)
    if letter.outbox is not None:
        fields.update(outbox.fields_of(letter.outbox))
    leave = plate.unsubscribe + unsubscribe
    names = {**plate.names, "contact": fields, "unsubscribe_url": leave, UNSUBSCRIBE: token(unsubscribe)}
    if letter.trackable:
        names[ENGAGEMENT] = token(engagement)
    if plate.destinations is not None:
        names["links"] = {number: personalise(url, names) for number, url in plate.destinations.items()}
    subject = renderer.one_line(plate.subject(names))
    head = _head(
        plate.sender,
        shown(_name(letter.contact), recipient, column=4),
        words(TEST_PREFIX + subject if letter.activity.built_in == "test" else subject, column=9),
        at,
        message_id,
        plate.domain,
    )
    # Transactional mail is auto-generated (RFC 3834) and belongs to no list, so it has no List-Unsubscribe.
    single = outbox.is_transactional(letter.outbox)
    kind = plate.single if single else f"{plate.bulk}List-Unsubscribe: <{leave}>\r\n"
    before, between, after = plate.frame
    text = without_blank_runs(plate.text(names))
    content = "".join((head, kind, before, text, between, *parts(plate.html, names), after))
    return _mail(bounce, plate.bounces, recipient, content.encode(), ascii=content.isascii())


def _system(letter: MailContext, outbox: OutboxMail, at: datetime) -> OutgoingMail:
    merged = system_mail.render(outbox.kind, outbox.language, outbox.context, letter.organisation)
    name, email = mail_template.sender(letter.version, letter.organisation)
    domain = email.rpartition("@")[2]
    send_id, recipient = letter.send.id, ascii_domain(letter.send.address)
    message_id, bounce = mint_sends(send_id, Purpose.MESSAGE_ID, Purpose.BOUNCE)
    head = _head(
        mailbox(name, email, column=6),
        shown(_name(letter.contact), recipient, column=4),
        words(merged.subject, column=9),
        at,
        message_id,
        domain,
    )
    before, between, after = (part.encode() for part in mail_template.frame(_boundary(send_id)))
    bodies = (before, quoted(merged.text), between, quoted(merged.html), after)
    bounces = letter.organisation.bounce_domain or domain
    return _mail(bounce, bounces, recipient, b"".join((f"{head}Auto-Submitted: auto-generated\r\n".encode(), *bodies)))


def _boundary(send_id: int) -> str:
    return hashlib.blake2b(send_id.to_bytes(8), digest_size=12).hexdigest()


def _head(sender: str, recipient: str, subject: str, at: datetime, message_id: str, domain: str) -> str:
    return (
        f"From: {sender}\r\nTo: {recipient}\r\nSubject: {subject}\r\nDate: {_date(int(at.timestamp()))}\r\n"
        f"Message-ID: <{message_id}@{domain}>\r\n"
    )


@lru_cache(4)
def _date(seconds: int) -> str:
    return date(datetime.fromtimestamp(seconds, UTC))


def _mail(bounce: str, domain: str, recipient: str, content: bytes, *, ascii: bool = False) -> OutgoingMail:
    return OutgoingMail(
        verp.address(bounce, domain), recipient, content, not recipient.isascii(), dotless=True, ascii=ascii
    )


def _name(contact: MergeContact | None) -> str:
    return f"{contact.first_name} {contact.last_name}".strip() if contact is not None else ""
