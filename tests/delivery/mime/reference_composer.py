"""Reference composer: renders plain text first and then encodes it with Python's ``email`` package."""

from datetime import datetime
from email.message import EmailMessage

from campaigns.content.rendering import renderer
from campaigns.content.rendering.links import personalise_url, pixel_url, tracked_url, unsubscribe_url
from campaigns.content.rendering.renderer import MergeUrls
from campaigns.delivery.mime.compose import MailContext


def compose_reference(context: MailContext, at: datetime) -> EmailMessage:
    """The mail's subject and bodies. Headers that merging cannot change are left out."""
    version, contact, send_id = context.version, context.contact, context.send.id
    assert version is not None
    assert contact is not None
    token_send_id = send_id if context.trackable else context.activity.id << 32
    fields = renderer.recipient_fields(contact, context.activity.campaign.name, context.organisation)
    links_are_direct = not context.trackable and context.activity.built_in
    urls = MergeUrls(
        links={
            link.number: personalise_url(link.url, fields)
            if links_are_direct
            else tracked_url(token_send_id, link.number)
            for link in version.links
        },
        pixel=pixel_url(send_id) if context.trackable else None,
        unsubscribe=unsubscribe_url(send_id),
    )
    rendered = renderer.render(version, fields, urls)
    message = EmailMessage()
    message["Subject"] = rendered.subject
    message.set_content(_with_final_newline(rendered.text), cte="quoted-printable")
    message.add_alternative(_with_final_newline(rendered.html), subtype="html", cte="quoted-printable")
    return message


def _with_final_newline(text: str) -> str:
    plain = text.replace("\r\n", "\n").replace("\r", "\n")
    return plain if plain.endswith("\n") else plain + "\n"
