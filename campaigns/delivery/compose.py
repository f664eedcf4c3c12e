"""One recipient's whole mail: envelope, headers, text and HTML.

Reads rows that were loaded before; asks nothing of the database, so it runs outside of any
transaction.
"""

import hashlib
from dataclasses import dataclass
from datetime import datetime

from campaigns.accounts.models import Organisation
from campaigns.audience.models import Contact
from campaigns.content import merge, system_mail
from campaigns.content.links import pixel_url, tracked_url, unsubscribe_url
from campaigns.content.merge import Merged, MergeUrls
from campaigns.content.models import MessageVersion
from campaigns.delivery.headers import ascii_domain, date, mailbox, words
from campaigns.delivery.models import Send
from campaigns.delivery.quoted import quoted
from campaigns.outbox import OutboxMail
from campaigns.planning.models import Activity
from campaigns.tokens import Purpose, mint_send

TEST_PREFIX = "[Test] "


@dataclass(frozen=True, slots=True)
class Mail:
    """What SMTP needs: the envelope, and a content that ends with CRLF."""

    sender: str
    recipient: str
    content: bytes
    smtputf8: bool
    dotless: bool = False
    """Known to have no line that begins with a dot; looking for one costs as much as sending it."""


@dataclass(frozen=True, slots=True)
class Letter:
    """Everything about a send that its mail is made of."""

    send: Send
    activity: Activity
    organisation: Organisation
    version: MessageVersion | None = None
    contact: Contact | None = None
    outbox: OutboxMail | None = None
    trackable: bool = False


def compose(letter: Letter, at: datetime) -> Mail:
    """The mail, the same for each try but for its date.

    Raises ValueError or a KampaniaError when this recipient's mail can't be made.
    """
    merged = _merged(letter)
    sender = _sender(letter)
    domain = sender[1].rpartition("@")[2]
    send_id = letter.send.id
    recipient = ascii_domain(letter.send.address)
    head = _head(letter, merged, sender, domain, at)
    boundary = f"=_{hashlib.blake2b(send_id.to_bytes(8), digest_size=12).hexdigest()}"  # "=_" is never quoted-printable
    lines = [f"{name}: {value}" for name, value in head.items()]
    lines += ["MIME-Version: 1.0", f'Content-Type: multipart/alternative; boundary="{boundary}"']
    head_lines = "\r\n".join(lines).encode("utf-8")
    parts = (*_part(boundary, "plain", merged.text), *_part(boundary, "html", merged.html))
    content = b"\r\n".join((head_lines, b"", *parts, f"--{boundary}--\r\n".encode()))
    return Mail(
        f"b+{mint_send(Purpose.BOUNCE, send_id)}@{domain}", recipient, content, not recipient.isascii(), dotless=True
    )


def _part(boundary: str, subtype: str, body: str) -> tuple[bytes, ...]:
    return (
        f"--{boundary}".encode(),
        f"Content-Type: text/{subtype}; charset=utf-8".encode(),
        b"Content-Transfer-Encoding: quoted-printable",
        b"",
        quoted(body),
    )


def _merged(letter: Letter) -> Merged:
    if letter.outbox is not None:
        mail = letter.outbox
        return system_mail.render(mail.kind, mail.language, mail.context, letter.organisation)
    version = letter.version
    if version is None:
        raise ValueError("a send without content")
    somebody = letter.contact or Contact(email=letter.send.address)  # a test mail to somebody we don't know
    fields = merge.fields_of(somebody, letter.activity.campaign.name, letter.organisation)
    return merge.render(version, fields, urls(letter, version))


def urls(letter: Letter, version: MessageVersion) -> MergeUrls:
    """Personal links and a pixel only for whom we may measure; else links that count the mailing
    as a whole (sequence number 0), and no pixel."""
    send_id = letter.send.id
    counted = send_id if letter.trackable else letter.activity.id << 32
    return MergeUrls(
        links={link.number: tracked_url(counted, link.number) for link in version.links},
        pixel=pixel_url(send_id) if letter.trackable else None,
        unsubscribe=unsubscribe_url(send_id),
    )


def _sender(letter: Letter) -> tuple[str, str]:
    version, organisation = letter.version, letter.organisation
    name = (version.from_name if version else "") or organisation.sender_name
    return name, ascii_domain((version.from_email if version else "") or organisation.sender_email)


def _head(letter: Letter, merged: Merged, sender: tuple[str, str], domain: str, at: datetime) -> dict[str, str]:
    send, version = letter.send, letter.version
    test = letter.activity.built_in == "test"
    head = {
        "From": mailbox(*sender, column=6),
        "To": mailbox(_name(letter.contact), send.address, column=4),
        "Subject": words((TEST_PREFIX if test else "") + merged.subject, column=9),
        "Date": date(at),
        "Message-ID": f"<{mint_send(Purpose.MESSAGE_ID, send.id)}@{domain}>",
    }
    if version is not None and version.reply_to:
        head["Reply-To"] = mailbox("", version.reply_to, column=10)
    return head | (_bulk(letter, domain) if version is not None else {"Auto-Submitted": "auto-generated"})


def _name(contact: Contact | None) -> str:
    return f"{contact.first_name} {contact.last_name}".strip() if contact is not None else ""


def _bulk(letter: Letter, domain: str) -> dict[str, str]:
    """What a marketing mail says about itself: RFC 2919, RFC 8058, Gmail's feedback loop."""
    activity = letter.activity
    audience = f"list-{activity.list_id}" if activity.list_id is not None else activity.built_in or "everybody"
    brand = hashlib.blake2b(domain.encode(), digest_size=5).hexdigest()
    return {
        "List-Id": f"<{audience}.{domain}>",
        "List-Unsubscribe": f"<{unsubscribe_url(letter.send.id)}>",
        "List-Unsubscribe-Post": "List-Unsubscribe=One-Click",
        "Feedback-ID": f"c{activity.campaign_id}:{audience}:a{activity.id}:{brand}",
    }
