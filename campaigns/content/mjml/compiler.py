"""Message compiler: turns a draft into the templates that are merged per recipient.

Runs in the sandbox process (:mod:`campaigns.content.mjml.subprocess_sandbox`), where a hostile or broken source
cannot harm the application through MRML, Jinja or memory use. Does not import the database.
"""

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from html import escape, unescape
from pathlib import Path

from campaigns.content.mjml import merge_expressions, validator
from campaigns.content.mjml.diagnostics import Diagnostic, Severity, errors
from campaigns.content.mjml.validator import PreparedMjml
from campaigns.content.rendering import jinja_sandbox, links
from campaigns.i18n import N_

COMPILER = 1
"""Part of every content hash; increment it when the same source must compile to a different mail."""
EMAILS = Path(__file__).resolve().parents[3] / "templates" / "emails"
LARGEST_MAIL = 100 * 1024
LARGE_MAIL = 80 * 1024
LONG_SUBJECT = 120

_FOOTER_FIELDS = ("organisation.name", "organisation.postal_address")
_ANCHOR = re.compile(r'<(a|area)((?:\s+[^\s=>"]+(?:="[^"]*")?)*)\s*/?>', re.IGNORECASE)
_HREF = re.compile(r'(?<=\shref=")[^"]*')
_ALT = re.compile(r'<img\b[^>]*\salt="([^"]*)"', re.IGNORECASE)
_COMMENTS = re.compile(r"<!--.*?-->", re.DOTALL)
_TAGS = re.compile(r'<(?:"[^"]*"|[^">])*>')
_PIXEL = (
    '{% if pixel %}<img src="{{ pixel }}" alt="" width="1" height="1" '
    'style="display:block;width:1px;height:1px;border:0" />{% endif %}'
)
_RTL = (
    '<mj-attributes><mj-section direction="rtl" /><mj-wrapper direction="rtl" /><mj-group direction="rtl" />'
    '<mj-column direction="rtl" /><mj-text align="right" /></mj-attributes>'
)


@dataclass(frozen=True, slots=True)
class MessageDraft:
    """The content of a message, apart from its row."""

    subject: str
    preheader: str
    mjml: str
    language: str


@dataclass(frozen=True, slots=True)
class TrackedLink:
    number: int
    url: str
    label: str


@dataclass(slots=True)
class CompiledMessage:
    """Result of compiling a draft. ``html`` and ``text`` are empty when ``findings`` contain errors."""

    findings: list[Diagnostic] = field(default_factory=list)
    subject: str = ""
    preheader: str = ""
    html: str = ""
    text: str = ""
    links: list[TrackedLink] = field(default_factory=list)


def build(draft: MessageDraft, known: Collection[str], hosts: Collection[str]) -> CompiledMessage:
    """Validate, complete and compile a draft. ``known`` are the merge fields, ``hosts`` the own hosts."""
    built = CompiledMessage(subject=draft.subject.strip(), preheader=draft.preheader.strip())
    checked = validator.prepare(draft.mjml, known, hosts, draft.language)
    built.findings = [*_line(built.subject, "subject", known), *_line(built.preheader, "preheader", known)]
    built.findings += checked.findings
    _doubts(built, checked)
    if errors(built.findings):
        return built
    prepared = validator.prepare(_completed(draft, checked), {*known, *_FOOTER_FIELDS}, hosts, draft.language)
    try:
        _compile(built, prepared, hosts)
    except ValueError as error:
        params = {"reason": str(error)[:200]}
        built.findings.append(Diagnostic(N_("The MJML cannot be rendered: %(reason)s"), "mjml", params=params))
    if errors(built.findings):
        built.html = built.text = ""
    return built


def merge_once(built: CompiledMessage, names: Mapping[str, object]) -> int:
    """Render a compiled draft once and return the HTML size in bytes; append size findings.

    ``names["link"]`` stands in for every tracked URL, so the size is that of a mail as sent. Returns 0 when there are
    errors. Raises ValidationFailed when the output exceeds the sandbox's limit.
    """
    if errors(built.findings):
        return 0
    names = {**names, "links": {each.number: names.get("link", "") for each in built.links}}
    jinja_sandbox.fill(jinja_sandbox.LINE.from_string(built.subject), names)
    jinja_sandbox.fill(jinja_sandbox.TEXT.from_string(built.text), names)
    size = len(jinja_sandbox.fill(jinja_sandbox.HTML.from_string(built.html), names).encode("utf-8", "replace"))
    params = {"size": round(size / 1024), "limit": LARGEST_MAIL // 1024}
    if size > LARGEST_MAIL:
        message = N_("The mail has %(size)s KB of HTML; Gmail cuts it off at %(limit)s KB.")
        built.findings.append(Diagnostic(message, "mjml", params=params))
    elif size > LARGE_MAIL:
        message = N_("The mail has %(size)s KB of HTML; at %(limit)s KB it cannot be sent any more.")
        built.findings.append(Diagnostic(message, "mjml", params=params, level=Severity.WARNING))
    return size


def _line(text: str, where: str, known: Collection[str]) -> list[Diagnostic]:
    """Check a one-line text (subject or preheader) and its merge expressions."""
    if not text:
        return [Diagnostic(N_("The subject is missing."), where)] if where == "subject" else []
    if re.search(r"[\x00-\x1f\x7f\u2028\u2029]", text):
        return [Diagnostic(N_("Line breaks and control characters are not possible here."), where)]
    found, findings = merge_expressions.scan(text, where)
    return findings + merge_expressions.check(text, found, where, known)


def _doubts(built: CompiledMessage, checked: PreparedMjml) -> None:
    if len(built.subject) > LONG_SUBJECT:
        built.findings.append(
            Diagnostic(N_("Most mail programs cut a subject this long."), "subject", level=Severity.WARNING)
        )
    if "mj-preview" in checked.has:
        if built.preheader:
            message = N_("The MJML has an <mj-preview> of its own; this text is not used.")
            built.findings.append(Diagnostic(message, "preheader", level=Severity.WARNING))
        built.preheader = " ".join(checked.preview.split())


def _completed(draft: MessageDraft, checked: PreparedMjml) -> str:
    """The source with missing parts added: title, preheader, colour scheme, direction, unsubscribe footer."""
    source = draft.mjml.replace("\r\n", "\n").replace("\r", "\n")
    head = _RTL if draft.language in validator.RTL else ""
    if "mj-title" not in checked.has:
        head += f"<mj-title>{_escaped(draft.subject.strip())}</mj-title>"
    if "mj-preview" not in checked.has and draft.preheader.strip():
        head += f"<mj-preview>{_escaped(draft.preheader.strip())}</mj-preview>"
    if "color-scheme" not in checked.has:
        schemes = "light dark" if "dark" in checked.has else "light"
        head += f'<mj-raw><meta name="color-scheme" content="{schemes}" /><meta name="supported-color-schemes" content="{schemes}" /></mj-raw>'  # noqa: E501
    if "unsubscribe" not in checked.has:
        source = source[: checked.body_end] + footer(draft.language) + source[checked.body_end :]
    if checked.head is not None:
        return source[: checked.head] + head + source[checked.head :]
    return f"{source[: checked.body]}<mj-head>{head}</mj-head>{source[checked.body :]}"


def footer(language: str) -> str:
    """Return the unsubscribe footer in the message's language, or in English."""
    path = EMAILS / "footer" / f"{language}.mjml"
    return (path if path.exists() else EMAILS / "footer" / "en.mjml").read_text(encoding="utf-8")


def _escaped(text: str) -> str:
    """XML-escape ``text`` except its merge expressions."""
    found, _ = merge_expressions.scan(text, "")
    parts, position = [], 0
    for expression in found:
        parts += [escape(text[position : expression.start], quote=False), expression.source]
        position = expression.end
    return "".join([*parts, escape(text[position:], quote=False)])


def _compile(built: CompiledMessage, prepared: PreparedMjml, hosts: Collection[str]) -> None:
    built.findings += errors(prepared.findings)
    page = validator.render(prepared)
    if prepared.inline_css:
        import css_inline  # imported here so that a worker that only sends does not load it

        page = css_inline.CSSInliner(
            inline_style_tags=False,
            keep_style_tags=True,
            keep_link_tags=True,
            load_remote_stylesheets=False,
            extra_css="\n".join(prepared.inline_css),
        ).inline(page)
    page = _number(page, built, prepared, hosts)
    words = re.sub(rf"<!--({prepared.prefix}\d+q)-->", r"\1", page)
    before, end, after = _literal(page, prepared).rpartition("</body>")
    built.html = prepared.restored(before) + _PIXEL + end + prepared.restored(after)
    built.text = _text(words, prepared)


def _number(page: str, built: CompiledMessage, prepared: PreparedMjml, hosts: Collection[str]) -> str:
    """Number every web link and replace its URL by ``{{ links[n] }}``."""
    parts, position = [], 0
    for anchor in _ANCHOR.finditer(page):
        href = _HREF.search(anchor[2])
        if href is None:
            continue
        url = prepared.original(unescape(href[0]).strip())
        if url.startswith("#") or url.lower().startswith(("mailto:", "tel:", "sms:")) or url == "{{ unsubscribe_url }}":
            continue
        if message := links.fault(url, hosts):
            built.findings.append(Diagnostic(message, "mjml"))
            continue
        number = len(built.links) + 1
        built.links.append(TrackedLink(number, links.whole(url), _label(page, anchor, prepared) or url[:200]))
        start = anchor.start(2) + href.start()
        parts += [page[position:start], prepared.add(f"{{{{ links[{number}] }}}}")]
        position = anchor.start(2) + href.end()
    return "".join([*parts, page[position:]])


def _label(page: str, anchor: re.Match[str], prepared: PreparedMjml) -> str:
    if anchor[1].lower() == "area":
        return ""
    inside = page[anchor.end() : page.find("</a>", anchor.end())]
    inside = re.sub(rf"<!--({prepared.prefix}\d+q)-->", r"\1", inside)
    words = _TAGS.sub(" ", _COMMENTS.sub("", inside))
    if not words.strip():
        words = " ".join(_ALT.findall(inside))
    return " ".join(prepared.original(unescape(words)).split())[:200]


def _literal(text: str, prepared: PreparedMjml) -> str:
    """Escape braces that came from style sheets or entities, so that Jinja outputs them literally."""
    return re.sub(rf"\{{(?=[{{%#]|{prepared.prefix}\d)", '{{ "{" }}', text)


def _text(page: str, prepared: PreparedMjml) -> str:
    from campaigns.content.rendering.plain_text import plain  # imported here like css_inline

    return prepared.restored(_literal(plain(page), prepared))
