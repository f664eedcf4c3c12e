"""Mail templates: a message version prepared for rendering many mails.

A template holds everything that is the same for all recipients of an activity: headers, MIME frame, encoded text.
Rendering joins it with one recipient's values. ``tests/benchmarks/composing.py`` measures it.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from campaigns import config
from campaigns.accounts.models import Organisation
from campaigns.content.models import MessageVersion
from campaigns.content.rendering import renderer
from campaigns.delivery.mime import segment_renderer
from campaigns.delivery.mime.headers import ascii_domain, mailbox
from campaigns.delivery.mime.segment_renderer import Pattern
from campaigns.planning.models import Activity
from campaigns.tokens import Purpose, mint_send


@dataclass(frozen=True, slots=True)
class MailTemplate:
    """The parts shared by all mails of one message version in one activity."""

    domain: str
    """The domain of From and Message-ID."""
    bounces: str
    """The domain of the envelope sender."""
    sender: str
    """The value of the From header."""
    unsubscribe: str
    """The URL of the unsubscribe page up to its token."""
    bulk: str
    """The shared headers of a marketing mail, each ending with CRLF."""
    single: str
    """The shared headers of a transactional mail, each ending with CRLF."""
    frame: tuple[str, str, str]
    """The MIME text before, between and after the two bodies."""
    subject: Pattern
    text: Pattern
    html: Pattern
    names: Mapping[str, Any]
    """The merge values that are the same for all recipients. Without tracking they include the engagement token of
    the activity as a whole (sequence number 0)."""
    destinations: Mapping[int, str] | None = None
    """Link number → target with merge fields, for links that lead directly to their target; None when links lead
    through the tracking redirect."""


def plate(version: MessageVersion, activity: Activity, organisation: Organisation, trackable: bool) -> MailTemplate:
    """Build the template of a version in an activity. The compiled parts are cached by content."""
    name, email = sender(version, organisation)
    domain = email.rpartition("@")[2]
    settings = config.settings()
    # An anonymous click counts for its activity. Built-in activities collect unrelated single mails, so there is
    # nothing to count it for.
    straight = not trackable and activity.built_in is not None
    subject, text, html = _patterns(
        version.subject, version.text, version.html, settings.tracking_url, settings.base_url, trackable, not straight
    )
    return MailTemplate(
        domain=domain,
        bounces=organisation.bounce_domain or domain,
        sender=mailbox(name, email, column=6),
        unsubscribe=f"{settings.base_url}/u/",
        bulk=_bulk(version, activity, domain),
        single=_lines({**_reply_to(version), "Auto-Submitted": "auto-generated"}),
        frame=frame(hashlib.blake2b(version.content_hash.encode(), digest_size=12).hexdigest()),
        subject=subject,
        text=text,
        html=html,
        names={**renderer.house_fields(activity.campaign.name, organisation), **_nobody(activity, trackable)},
        destinations={link.number: link.url for link in version.links} if straight else None,
    )


def _nobody(activity: Activity, trackable: bool) -> Mapping[str, str]:
    return (
        {}
        if trackable
        else {segment_renderer.ENGAGEMENT: segment_renderer.token(mint_send(Purpose.ENGAGEMENT, activity.id << 32))}
    )


@lru_cache(32)
def _patterns(
    subject: str, text: str, html: str, tracking: str, base: str, trackable: bool, counted: bool
) -> tuple[Pattern, Pattern, Pattern]:
    addresses = segment_renderer.LinkTemplates(tracking, base, pixel=trackable, counted=counted)
    ends = text.rstrip("\n") + "\n", html.rstrip("\n") + "\n"
    return (
        segment_renderer.line(subject, addresses),
        segment_renderer.text(ends[0], addresses),
        segment_renderer.html(ends[1], addresses),
    )


def sender(version: MessageVersion | None, organisation: Organisation) -> tuple[str, str]:
    """(name, address) of the From header: the version's, else the organisation's."""
    name = (version.from_name if version else "") or organisation.sender_name
    return name, ascii_domain((version.from_email if version else "") or organisation.sender_email)


def _bulk(version: MessageVersion, activity: Activity, domain: str) -> str:
    """Headers of a marketing mail: List-Id (RFC 2919), one-click unsubscription (RFC 8058), and the Feedback-ID of
    Gmail's feedback loop."""
    audience = (
        f"list-{activity.email.list_id}" if activity.email.list_id is not None else activity.built_in or "everybody"
    )
    brand = hashlib.blake2b(domain.encode(), digest_size=5).hexdigest()
    head = {
        "List-Id": f"<{audience}.{domain}>",
        "List-Unsubscribe-Post": "List-Unsubscribe=One-Click",
        "Feedback-ID": f"c{activity.campaign_id}:{audience}:a{activity.id}:{brand}",
    }
    return _lines({**_reply_to(version), **head})


def _reply_to(version: MessageVersion) -> dict[str, str]:
    return {"Reply-To": mailbox("", version.reply_to, column=10)} if version.reply_to else {}


def _lines(head: Mapping[str, str]) -> str:
    return "".join(f"{name}: {value}\r\n" for name, value in head.items())


def frame(name: str) -> tuple[str, str, str]:
    """The MIME text before, between and after two quoted-printable bodies that end with CRLF (multipart/alternative).

    The boundary contains "=_", which cannot occur in a quoted-printable body (RFC 2045, section 6.7).
    """
    boundary = f"=_{name}"
    head = f'MIME-Version: 1.0\r\nContent-Type: multipart/alternative; boundary="{boundary}"\r\n\r\n'
    plain, html = (
        f"--{boundary}\r\nContent-Type: text/{kind}; charset=utf-8\r\n"
        "Content-Transfer-Encoding: quoted-printable\r\n\r\n"
        for kind in ("plain", "html")
    )
    return head + plain, "\r\n" + html, f"\r\n--{boundary}--\r\n"
