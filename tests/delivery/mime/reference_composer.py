"""Reference composer: renders plain text first and then encodes it with Python's ``email`` package."""

from datetime import datetime
from email.message import EmailMessage

from campaigns.content.rendering import renderer
from campaigns.content.rendering.links import personalise, pixel_url, tracked_url, unsubscribe_url
from campaigns.content.rendering.renderer import MergeUrls
from campaigns.delivery.mime.compose import MailContext


def composed(letter: MailContext, at: datetime) -> EmailMessage:
    """The mail's subject and bodies. Headers that merging cannot change are left out."""
    version, contact, send_id = letter.version, letter.contact, letter.send.id
    assert version is not None
    assert contact is not None
    counted = send_id if letter.trackable else letter.activity.id << 32
    fields = renderer.fields_of(contact, letter.activity.campaign.name, letter.organisation)
    straight = not letter.trackable and letter.activity.built_in
    urls = MergeUrls(
        links={
            link.number: personalise(link.url, fields) if straight else tracked_url(counted, link.number)
            for link in version.links
        },
        pixel=pixel_url(send_id) if letter.trackable else None,
        unsubscribe=unsubscribe_url(send_id),
    )
    merged = renderer.render(version, fields, urls)
    message = EmailMessage()
    message["Subject"] = merged.subject
    message.set_content(_ended(merged.text), cte="quoted-printable")
    message.add_alternative(_ended(merged.html), subtype="html", cte="quoted-printable")
    return message


def _ended(text: str) -> str:
    plain = text.replace("\r\n", "\n").replace("\r", "\n")
    return plain if plain.endswith("\n") else plain + "\n"
