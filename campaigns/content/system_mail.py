"""Mails that the application itself sends (password reset, new lead), from trusted templates per language."""

import re
from collections.abc import Mapping
from functools import cache
from html import unescape

from jinja2 import Environment, FileSystemLoader, StrictUndefined, select_autoescape

from campaigns import config
from campaigns.accounts.models import Organisation
from campaigns.content.mjml import validator
from campaigns.content.mjml.compiler import EMAIL_TEMPLATES
from campaigns.content.rendering.renderer import RenderedMessage, to_single_line
from campaigns.errors import NotFound
from campaigns.i18n import N_

_TITLE = re.compile(r"<title>(.*?)</title>", re.DOTALL)
_PREVIEW = re.compile(r"<body[^>]*><div[^>]*display:none[^>]*>(.*?)</div>", re.DOTALL)
_FALLBACK_LANGUAGE = "en"


@cache
def _environment() -> Environment:
    return Environment(
        loader=FileSystemLoader(EMAIL_TEMPLATES / "system"),
        autoescape=select_autoescape(["mjml"]),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )


def render(kind: str, language: str, context: Mapping[str, object], organisation: Organisation) -> RenderedMessage:
    """Render the system mail ``kind`` in a language, falling back to English. The subject is the MJML's title.

    Raises NotFound for an unknown kind, and Jinja's UndefinedError for values missing from the context.
    """
    folder = _language_folder(kind, language)
    names = {
        **context,
        "organisation": organisation,
        "base_url": config.settings().base_url,
        "language": folder,
        "direction": "rtl" if folder in validator.RTL_LANGUAGES else "ltr",
    }
    source = _environment().get_template(f"{folder}/{kind}.mjml").render(names)
    html = validator.render(validator.PreparedMjml(source=validator.encode_attributes(source)))
    text = _environment().get_template(f"{folder}/{kind}.txt").render(names)
    subject, preview = _TITLE.search(html), _PREVIEW.search(html)
    return RenderedMessage(
        subject=to_single_line(unescape(subject[1])) if subject else organisation.name,
        preheader=to_single_line(unescape(preview[1])) if preview else "",
        html=html,
        text=text.strip() + "\n",
    )


def _language_folder(kind: str, language: str) -> str:
    for folder in (language, language.partition("-")[0], _FALLBACK_LANGUAGE):
        if re.fullmatch(r"[a-z]+(_[a-z]+)*", kind) and (EMAIL_TEMPLATES / "system" / folder / f"{kind}.mjml").is_file():
            return folder
    raise NotFound(N_("There is no such mail."))
