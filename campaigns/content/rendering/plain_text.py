"""Text/plain part of a mail, generated from its HTML, with link URLs."""

import re

import lxml.html
from inscriptis import Inscriptis
from inscriptis.css_profiles import CSS_PROFILES
from inscriptis.model.config import ParserConfig
from lxml.html import HtmlElement

_INVISIBLE_TAGS = frozenset({"style", "script", "title"})
_HIDDEN_STYLE = re.compile(r"display\s*:\s*none|mso-hide\s*:\s*all", re.IGNORECASE)


def html_to_text(html: str) -> str:
    """Return the text of ``html``, with each link's URL in angle brackets after its text."""
    tree = lxml.html.document_fromstring(html)
    body = tree.find("body")
    if body is None:
        return ""
    for element in list(body.iter()):
        if (
            not isinstance(element.tag, str)
            or element.tag in _INVISIBLE_TAGS
            or _HIDDEN_STYLE.search(element.get("style") or "")
        ):
            _remove_element(element)
        else:
            element.attrib.pop("style", None)  # MJML's columns are inline-block; inscriptis would join their lines
    for element in list(body.iter("a")):
        _append_url(element)
    for table in list(body.iter("table"))[::-1]:
        _flatten_table(table)
    text = Inscriptis(body, ParserConfig(css=CSS_PROFILES["strict"], display_images=False)).get_text()
    lines = [line.strip() if not line.lstrip().startswith("*") else line.rstrip() for line in text.split("\n")]
    return re.sub(r"\n{3,}", "\n\n", "\n".join(lines)).strip() + "\n"


def _remove_element(element: HtmlElement) -> None:
    parent = element.getparent()
    if parent is not None:
        element.drop_tree() if isinstance(element.tag, str) else _drop_comment(element)


def _drop_comment(element: HtmlElement) -> None:
    parent, tail = element.getparent(), element.tail or ""
    before = element.getprevious()
    if before is not None:
        before.tail = (before.tail or "") + tail
    elif parent is not None:
        parent.text = (parent.text or "") + tail
    if parent is not None:
        parent.remove(element)


def _append_url(link: HtmlElement) -> None:
    href = (link.get("href") or "").strip()
    images = [image.get("alt", "") for image in link.iter("img")]
    text = " ".join(" ".join([link.text_content(), *images]).split())
    for image in list(link.iter("img")):
        _remove_element(image)
    address = href
    for scheme in ("mailto:", "tel:", "sms:"):
        address = address.removeprefix(scheme)
    if not text and images:
        link.text = address
        return
    if not address or address.startswith("#") or address.rstrip("/") == text.rstrip("/"):
        return
    for child in list(link):
        child.drop_tag()
    link.text = f"{text} <{address}>" if text else address


def _flatten_table(table: HtmlElement) -> None:
    """Turn layout tables into blocks, and rows of data tables into lines; call it for inner tables first."""
    layout = table.get("role") == "presentation"
    for element in list(table.iter("tbody", "thead", "tfoot", "tr", "td", "th")):
        if element.tag in ("td", "th") and not layout:
            element.tag = "span"
            element.tail = "  " + (element.tail or "").strip()
        else:
            # A layout cell without an inner table becomes a paragraph.
            element.tag = "p" if element.tag == "td" and not element.get("data-holds") else "div"
    table.tag = "div"
    for cell in table.iterancestors("td"):
        cell.set("data-holds", "a table")
