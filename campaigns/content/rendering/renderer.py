"""Mail renderer: merges a frozen version's templates for one recipient."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Protocol

from jinja2 import Template, TemplateError

from campaigns.accounts.models import Organisation
from campaigns.content.rendering.jinja_sandbox import (
    HTML_ENVIRONMENT,
    LINE_ENVIRONMENT,
    TEXT_ENVIRONMENT,
    render_limited,
)
from campaigns.errors import ValidationFailed


@dataclass(frozen=True, slots=True)
class MergeUrls:
    """The URLs in one recipient's mail."""

    links: Mapping[int, str]
    """URL per link number: the tracked URL, or the target itself without tracking."""
    pixel: str | None
    """None: the mail has no pixel."""
    unsubscribe: str


@dataclass(frozen=True, slots=True)
class RenderedMessage:
    """One recipient's rendered subject, preheader, HTML and text."""

    subject: str
    preheader: str
    html: str
    text: str


class TemplateSource(Protocol):
    """A message version, or any object with its four templates and a hash that identifies them."""

    @property
    def content_hash(self) -> str: ...
    @property
    def subject(self) -> str: ...
    @property
    def preheader(self) -> str: ...
    @property
    def html(self) -> str: ...
    @property
    def text(self) -> str: ...


@dataclass(frozen=True, slots=True)
class _Templates:
    subject: Template
    preheader: Template
    html: Template
    text: Template


# Each version's templates are compiled once, not per recipient. The content hash covers all four of them.
@lru_cache(64)
def _compile_templates(_content_hash: str, subject: str, preheader: str, html: str, text: str) -> _Templates:
    return _Templates(
        LINE_ENVIRONMENT.from_string(subject),
        LINE_ENVIRONMENT.from_string(preheader),
        HTML_ENVIRONMENT.from_string(html),
        TEXT_ENVIRONMENT.from_string(text),
    )


def render(version: TemplateSource, fields: Mapping[str, object], urls: MergeUrls) -> RenderedMessage:
    """Render one recipient's mail. Empty known fields become ''; subject and preheader are reduced to one line."""
    templates = _compile_templates(version.content_hash, version.subject, version.preheader, version.html, version.text)
    names = {**fields, **url_variables(urls)}
    return RenderedMessage(
        to_single_line(render_limited(templates.subject, names)),
        to_single_line(render_limited(templates.preheader, names)),
        render_limited(templates.html, names),
        EXTRA_BLANK_LINES.sub("\n\n", _normalise_newlines(render_limited(templates.text, names))).lstrip("\n"),
    )


EXTRA_BLANK_LINES = re.compile(r"\n{3,}")
"""Collapsed into one blank line; they remain where a condition is false."""


def _normalise_newlines(text: str) -> str:
    return text.replace("\r\n", "\n").replace("\r", "\n")


@lru_cache(256)
def _line_template(text: str) -> Template:
    return LINE_ENVIRONMENT.from_string(text)


def render_subject(subject: str, fields: Mapping[str, object]) -> str:
    """Return a version's subject as the recipient reads it, for pages; the raw template when it cannot be rendered."""
    try:
        return to_single_line(render_limited(_line_template(subject), fields))
    except (ValidationFailed, TemplateError):
        return subject


def url_variables(urls: MergeUrls) -> dict[str, object]:
    """Return the template variables of the URLs."""
    return {"links": urls.links, "pixel": urls.pixel, "unsubscribe_url": urls.unsubscribe}


def to_single_line(text: str) -> str:
    """Return ``text`` as a header value: contact fields may contain line breaks, headers may not (header injection)."""
    if not text.isprintable():
        text = "".join(c if c.isprintable() or c in _KEPT_INVISIBLE else " " for c in text)
    return " ".join(text.split())


_KEPT_INVISIBLE = "\u200c\u200d\u200e\u200f"  # used in Persian words and emoji; isprintable() is false for them


class MergeContact(Protocol):
    """The contact attributes that merge fields read."""

    @property
    def email(self) -> str: ...
    @property
    def first_name(self) -> str: ...
    @property
    def last_name(self) -> str: ...
    @property
    def language(self) -> str | None: ...
    @property
    def attributes(self) -> Mapping[str, Any]: ...


def recipient_fields(
    contact: MergeContact, campaign_name: str, organisation: Organisation
) -> dict[str, dict[str, str]]:
    """Return the merge fields of one recipient, as {"contact": {…}, "campaign": {…}, "organisation": {…}}."""
    return {"contact": contact_fields(contact), **mailing_fields(campaign_name, organisation)}


def contact_fields(contact: MergeContact) -> dict[str, str]:
    """Return a contact's merge fields; its columns win over attributes of the same name."""
    return {
        **{key: str(value) for key, value in (contact.attributes or {}).items() if value is not None},
        "email": contact.email,
        "first_name": contact.first_name or "",
        "last_name": contact.last_name or "",
        "language": contact.language or "",
    }


def mailing_fields(campaign_name: str, organisation: Organisation) -> dict[str, dict[str, str]]:
    """Return the merge fields that are the same for every recipient of a mailing."""
    return {
        "campaign": {"name": campaign_name},
        "organisation": {
            "name": organisation.name,
            "postal_address": " ".join((organisation.postal_address or "").split()),
            "sender_name": organisation.sender_name,
            "sender_email": organisation.sender_email,
        },
    }
