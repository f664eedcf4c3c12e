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
from campaigns.content.rendering.links import personalise_url
from campaigns.content.rendering.renderer import MergeContact
from campaigns.delivery.mime import dkim, mail_template, verp
from campaigns.delivery.mime.dkim import Signer
from campaigns.delivery.mime.envelope import OutgoingMail
from campaigns.delivery.mime.headers import (
    encode_ascii_mailbox,
    encode_mailbox,
    encode_text,
    format_date,
    with_ascii_domain,
)
from campaigns.delivery.mime.mail_template import MailTemplate
from campaigns.delivery.mime.quoted_printable import collapse_blank_lines, encode_body
from campaigns.delivery.mime.segment_renderer import ENGAGEMENT, UNSUBSCRIBE, render_parts, token_segment
from campaigns.outbox import OutboxMail
from campaigns.planning.models import Activity
from campaigns.tokens import Purpose, mint_send_tokens

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
    template: MailTemplate | None = None
    """The template shared by the mails of a batch; built for this mail when None."""
    signers: Sequence[Signer] = ()


def compose(context: MailContext, at: datetime) -> OutgoingMail:
    """Compose and sign the mail. Every attempt gives the same mail except for its date.

    Raises ValueError or a KampaniaError when the mail cannot be composed for this recipient.
    """
    mail = _compose_unsigned(context, at)
    return (
        replace(mail, content=dkim.sign(mail.content, context.signers, at, is_canonical=True))
        if context.signers
        else mail
    )


def _compose_unsigned(context: MailContext, at: datetime) -> OutgoingMail:
    if context.version is None and context.outbox is not None:
        return _render_system_mail(context, context.outbox, at)
    if context.version is None:
        raise ValueError("a send without content")
    template = context.template or mail_template.build_template(
        context.version, context.activity, context.organisation, context.trackable
    )
    return _render_message(context, template, at)


def _render_message(context: MailContext, template: MailTemplate, at: datetime) -> OutgoingMail:
    """Compose a mail of a message version.

    With tracking consent it has personal links and a pixel. Without it there is no pixel, and the links carry the
    token of the activity as a whole (sequence number 0); links of a built-in activity then lead directly to their
    targets.
    """
    send_id, address = context.send.id, context.send.address
    contact = context.contact or Contact(email=address)  # a test mail to an address without a contact
    unsubscribe_token, message_id, bounce_token, engagement_token = mint_send_tokens(send_id, *_PURPOSES)
    recipient = with_ascii_domain(address)
    fields = renderer.contact_fields(contact)
    if context.outbox is not None:
        fields.update(outbox.fields_of(context.outbox))
    unsubscribe_url = template.unsubscribe_prefix + unsubscribe_token
    values = {
        **template.shared_values,
        "contact": fields,
        "unsubscribe_url": unsubscribe_url,
        UNSUBSCRIBE: token_segment(unsubscribe_token),
    }
    if context.trackable:
        values[ENGAGEMENT] = token_segment(engagement_token)
    if template.direct_links is not None:
        values["links"] = {number: personalise_url(url, values) for number, url in template.direct_links.items()}
    subject = renderer.to_single_line(template.subject(values))
    headers = _common_headers(
        template.from_header,
        encode_ascii_mailbox(_display_name(context.contact), recipient, column=4),
        encode_text(TEST_PREFIX + subject if context.activity.built_in == "test" else subject, column=9),
        at,
        message_id,
        template.sender_domain,
    )
    # Transactional mail is auto-generated (RFC 3834) and belongs to no list, so it has no List-Unsubscribe.
    is_transactional = outbox.is_transactional(context.outbox)
    kind_headers = (
        template.transactional_headers
        if is_transactional
        else f"{template.bulk_headers}List-Unsubscribe: <{unsubscribe_url}>\r\n"
    )
    before, between, after = template.frame
    text = collapse_blank_lines(template.text(values))
    content = "".join((headers, kind_headers, before, text, between, *render_parts(template.html, values), after))
    return _outgoing_mail(bounce_token, template.bounce_domain, recipient, content.encode(), ascii=content.isascii())


def _render_system_mail(context: MailContext, outbox: OutboxMail, at: datetime) -> OutgoingMail:
    rendered = system_mail.render(outbox.kind, outbox.language, outbox.context, context.organisation)
    name, email = mail_template.resolve_sender(context.version, context.organisation)
    domain = email.rpartition("@")[2]
    send_id, recipient = context.send.id, with_ascii_domain(context.send.address)
    message_id, bounce_token = mint_send_tokens(send_id, Purpose.MESSAGE_ID, Purpose.BOUNCE)
    headers = _common_headers(
        encode_mailbox(name, email, column=6),
        encode_ascii_mailbox(_display_name(context.contact), recipient, column=4),
        encode_text(rendered.subject, column=9),
        at,
        message_id,
        domain,
    )
    before, between, after = (part.encode() for part in mail_template.multipart_frame(_boundary(send_id)))
    bodies = (before, encode_body(rendered.text), between, encode_body(rendered.html), after)
    bounce_domain = context.organisation.bounce_domain or domain
    return _outgoing_mail(
        bounce_token,
        bounce_domain,
        recipient,
        b"".join((f"{headers}Auto-Submitted: auto-generated\r\n".encode(), *bodies)),
    )


def _boundary(send_id: int) -> str:
    return hashlib.blake2b(send_id.to_bytes(8), digest_size=12).hexdigest()


def _common_headers(sender: str, recipient: str, subject: str, at: datetime, message_id: str, domain: str) -> str:
    return (
        f"From: {sender}\r\nTo: {recipient}\r\nSubject: {subject}\r\nDate: {_date_header(int(at.timestamp()))}\r\n"
        f"Message-ID: <{message_id}@{domain}>\r\n"
    )


@lru_cache(4)
def _date_header(seconds: int) -> str:
    return format_date(datetime.fromtimestamp(seconds, UTC))


def _outgoing_mail(
    bounce_token: str, domain: str, recipient: str, content: bytes, *, ascii: bool = False
) -> OutgoingMail:
    return OutgoingMail(
        verp.sender_for_token(bounce_token, domain),
        recipient,
        content,
        not recipient.isascii(),
        has_no_leading_dots=True,
        is_ascii=ascii,
    )


def _display_name(contact: MergeContact | None) -> str:
    return f"{contact.first_name} {contact.last_name}".strip() if contact is not None else ""
