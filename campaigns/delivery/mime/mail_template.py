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
from campaigns.delivery.mime.headers import encode_mailbox, with_ascii_domain
from campaigns.delivery.mime.segment_renderer import RenderFunction
from campaigns.planning.models import Activity
from campaigns.tokens import Purpose, mint_send_token


@dataclass(frozen=True, slots=True)
class MailTemplate:
    """The parts shared by all mails of one message version in one activity."""

    sender_domain: str
    """The domain of From and Message-ID."""
    bounce_domain: str
    """The domain of the envelope sender."""
    from_header: str
    """The value of the From header."""
    unsubscribe_prefix: str
    """The URL of the unsubscribe page up to its token."""
    bulk_headers: str
    """The shared headers of a marketing mail, each ending with CRLF."""
    transactional_headers: str
    """The shared headers of a transactional mail, each ending with CRLF."""
    frame: tuple[str, str, str]
    """The MIME text before, between and after the two bodies."""
    subject: RenderFunction
    text: RenderFunction
    html: RenderFunction
    shared_values: Mapping[str, Any]
    """The merge values that are the same for all recipients. Without tracking they include the engagement token of
    the activity as a whole (sequence number 0)."""
    direct_links: Mapping[int, str] | None = None
    """Link number → target with merge fields, for links that lead directly to their target; None when links lead
    through the tracking redirect."""


def build_template(
    version: MessageVersion, activity: Activity, organisation: Organisation, trackable: bool
) -> MailTemplate:
    """Build the template of a version in an activity. The compiled parts are cached by content."""
    name, email = resolve_sender(version, organisation)
    domain = email.rpartition("@")[2]
    settings = config.settings()
    # An anonymous click counts for its activity. Built-in activities collect unrelated single mails, so there is
    # nothing to count it for.
    links_are_direct = not trackable and activity.built_in is not None
    subject, text, html = _compile_parts(
        version.subject,
        version.text,
        version.html,
        settings.tracking_url,
        settings.base_url,
        trackable,
        not links_are_direct,
    )
    return MailTemplate(
        sender_domain=domain,
        bounce_domain=organisation.bounce_domain or domain,
        from_header=encode_mailbox(name, email, column=6),
        unsubscribe_prefix=f"{settings.base_url}/u/",
        bulk_headers=_bulk_headers(version, activity, domain),
        transactional_headers=_format_headers({**_reply_to_header(version), "Auto-Submitted": "auto-generated"}),
        frame=multipart_frame(hashlib.blake2b(version.content_hash.encode(), digest_size=12).hexdigest()),
        subject=subject,
        text=text,
        html=html,
        shared_values={
            **renderer.mailing_fields(activity.campaign.name, organisation),
            **_anonymous_token(activity, trackable),
        },
        direct_links={link.number: link.url for link in version.links} if links_are_direct else None,
    )


def _anonymous_token(activity: Activity, trackable: bool) -> Mapping[str, str]:
    return (
        {}
        if trackable
        else {
            segment_renderer.ENGAGEMENT: segment_renderer.token_segment(
                mint_send_token(Purpose.ENGAGEMENT, activity.id << 32)
            )
        }
    )


@lru_cache(32)
def _compile_parts(
    subject: str, text: str, html: str, tracking_url: str, base_url: str, trackable: bool, through_redirect: bool
) -> tuple[RenderFunction, RenderFunction, RenderFunction]:
    link_templates = segment_renderer.LinkTemplates(
        tracking_url, base_url, has_pixel=trackable, through_redirect=through_redirect
    )
    bodies = text.rstrip("\n") + "\n", html.rstrip("\n") + "\n"
    return (
        segment_renderer.compile_subject(subject, link_templates),
        segment_renderer.compile_text(bodies[0], link_templates),
        segment_renderer.compile_html(bodies[1], link_templates),
    )


def resolve_sender(version: MessageVersion | None, organisation: Organisation) -> tuple[str, str]:
    """(name, address) of the From header: the version's, else the organisation's."""
    name = (version.from_name if version else "") or organisation.sender_name
    return name, with_ascii_domain((version.from_email if version else "") or organisation.sender_email)


def _bulk_headers(version: MessageVersion, activity: Activity, domain: str) -> str:
    """Headers of a marketing mail: List-Id (RFC 2919), one-click unsubscription (RFC 8058), and the Feedback-ID of
    Gmail's feedback loop."""
    audience = (
        f"list-{activity.email.list_id}" if activity.email.list_id is not None else activity.built_in or "everybody"
    )
    brand = hashlib.blake2b(domain.encode(), digest_size=5).hexdigest()
    headers = {
        "List-Id": f"<{audience}.{domain}>",
        "List-Unsubscribe-Post": "List-Unsubscribe=One-Click",
        "Feedback-ID": f"c{activity.campaign_id}:{audience}:a{activity.id}:{brand}",
    }
    return _format_headers({**_reply_to_header(version), **headers})


def _reply_to_header(version: MessageVersion) -> dict[str, str]:
    return {"Reply-To": encode_mailbox("", version.reply_to, column=10)} if version.reply_to else {}


def _format_headers(headers: Mapping[str, str]) -> str:
    return "".join(f"{name}: {value}\r\n" for name, value in headers.items())


def multipart_frame(name: str) -> tuple[str, str, str]:
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
