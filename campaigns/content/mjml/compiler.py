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

COMPILER_VERSION = 1
"""Part of every content hash; increment it when the same source must compile to a different mail."""
EMAIL_TEMPLATES = Path(__file__).resolve().parents[3] / "templates" / "emails"
MAX_MAIL_BYTES = 100 * 1024
LARGE_MAIL_BYTES = 80 * 1024
LONG_SUBJECT_LENGTH = 120

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


def compile_draft(draft: MessageDraft, known: Collection[str], hosts: Collection[str]) -> CompiledMessage:
    """Validate, complete and compile a draft. ``known`` are the merge fields, ``hosts`` the own hosts."""
    compiled = CompiledMessage(subject=draft.subject.strip(), preheader=draft.preheader.strip())
    checked = validator.validate_and_prepare(draft.mjml, known, hosts, draft.language)
    compiled.findings = [
        *_check_line(compiled.subject, "subject", known),
        *_check_line(compiled.preheader, "preheader", known),
    ]
    compiled.findings += checked.findings
    _add_warnings(compiled, checked)
    if errors(compiled.findings):
        return compiled
    prepared = validator.validate_and_prepare(
        _complete_source(draft, checked), {*known, *_FOOTER_FIELDS}, hosts, draft.language
    )
    try:
        _compile_prepared(compiled, prepared, hosts)
    except ValueError as error:
        params = {"reason": str(error)[:200]}
        compiled.findings.append(Diagnostic(N_("The MJML cannot be rendered: %(reason)s"), "mjml", params=params))
    if errors(compiled.findings):
        compiled.html = compiled.text = ""
    return compiled


def check_size(compiled: CompiledMessage, names: Mapping[str, object]) -> int:
    """Render a compiled draft once and return the HTML size in bytes; append size findings.

    ``names["link"]`` stands in for every tracked URL, so the size is that of a mail as sent. Returns 0 when there are
    errors. Raises ValidationFailed when the output exceeds the sandbox's limit.
    """
    if errors(compiled.findings):
        return 0
    names = {**names, "links": {each.number: names.get("link", "") for each in compiled.links}}
    jinja_sandbox.render_limited(jinja_sandbox.LINE_ENVIRONMENT.from_string(compiled.subject), names)
    jinja_sandbox.render_limited(jinja_sandbox.TEXT_ENVIRONMENT.from_string(compiled.text), names)
    size = len(
        jinja_sandbox.render_limited(jinja_sandbox.HTML_ENVIRONMENT.from_string(compiled.html), names).encode(
            "utf-8", "replace"
        )
    )
    params = {"size": round(size / 1024), "limit": MAX_MAIL_BYTES // 1024}
    if size > MAX_MAIL_BYTES:
        message = N_("The mail has %(size)s KB of HTML; Gmail cuts it off at %(limit)s KB.")
        compiled.findings.append(Diagnostic(message, "mjml", params=params))
    elif size > LARGE_MAIL_BYTES:
        message = N_("The mail has %(size)s KB of HTML; at %(limit)s KB it cannot be sent any more.")
        compiled.findings.append(Diagnostic(message, "mjml", params=params, level=Severity.WARNING))
    return size


def _check_line(text: str, where: str, known: Collection[str]) -> list[Diagnostic]:
    """Check a one-line text (subject or preheader) and its merge expressions."""
    if not text:
        return [Diagnostic(N_("The subject is missing."), where)] if where == "subject" else []
    if re.search(r"[\x00-\x1f\x7f\u2028\u2029]", text):
        return [Diagnostic(N_("Line breaks and control characters are not possible here."), where)]
    found, findings = merge_expressions.scan_expressions(text, where)
    return findings + merge_expressions.check_expressions(text, found, where, known)


def _add_warnings(compiled: CompiledMessage, checked: PreparedMjml) -> None:
    if len(compiled.subject) > LONG_SUBJECT_LENGTH:
        compiled.findings.append(
            Diagnostic(N_("Most mail programs cut a subject this long."), "subject", level=Severity.WARNING)
        )
    if "mj-preview" in checked.features:
        if compiled.preheader:
            message = N_("The MJML has an <mj-preview> of its own; this text is not used.")
            compiled.findings.append(Diagnostic(message, "preheader", level=Severity.WARNING))
        compiled.preheader = " ".join(checked.preview.split())


def _complete_source(draft: MessageDraft, checked: PreparedMjml) -> str:
    """The source with missing parts added: title, preheader, colour scheme, direction, unsubscribe footer."""
    source = draft.mjml.replace("\r\n", "\n").replace("\r", "\n")
    head = _RTL if draft.language in validator.RTL_LANGUAGES else ""
    if "mj-title" not in checked.features:
        head += f"<mj-title>{_escape_text(draft.subject.strip())}</mj-title>"
    if "mj-preview" not in checked.features and draft.preheader.strip():
        head += f"<mj-preview>{_escape_text(draft.preheader.strip())}</mj-preview>"
    if "color-scheme" not in checked.features:
        schemes = "light dark" if "dark" in checked.features else "light"
        head += f'<mj-raw><meta name="color-scheme" content="{schemes}" /><meta name="supported-color-schemes" content="{schemes}" /></mj-raw>'  # noqa: E501
    if "unsubscribe" not in checked.features:
        source = source[: checked.body_end_offset] + footer(draft.language) + source[checked.body_end_offset :]
    if checked.head_offset is not None:
        return source[: checked.head_offset] + head + source[checked.head_offset :]
    return f"{source[: checked.body_offset]}<mj-head>{head}</mj-head>{source[checked.body_offset :]}"


def footer(language: str) -> str:
    """Return the unsubscribe footer in the message's language, or in English."""
    path = EMAIL_TEMPLATES / "footer" / f"{language}.mjml"
    return (path if path.exists() else EMAIL_TEMPLATES / "footer" / "en.mjml").read_text(encoding="utf-8")


def _escape_text(text: str) -> str:
    """XML-escape ``text`` except its merge expressions."""
    found, _ = merge_expressions.scan_expressions(text, "")
    parts, position = [], 0
    for expression in found:
        parts += [escape(text[position : expression.start], quote=False), expression.source]
        position = expression.end
    return "".join([*parts, escape(text[position:], quote=False)])


def _compile_prepared(compiled: CompiledMessage, prepared: PreparedMjml, hosts: Collection[str]) -> None:
    compiled.findings += errors(prepared.findings)
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
    page = _number_links(page, compiled, prepared, hosts)
    text_source = re.sub(rf"<!--({prepared.prefix}\d+q)-->", r"\1", page)
    before, end, after = _escape_braces(page, prepared).rpartition("</body>")
    compiled.html = prepared.restore_expressions(before) + _PIXEL + end + prepared.restore_expressions(after)
    compiled.text = _plain_text(text_source, prepared)


def _number_links(page: str, compiled: CompiledMessage, prepared: PreparedMjml, hosts: Collection[str]) -> str:
    """Number every web link and replace its URL by ``{{ links[n] }}``."""
    parts, position = [], 0
    for anchor in _ANCHOR.finditer(page):
        href = _HREF.search(anchor[2])
        if href is None:
            continue
        url = prepared.restore_written(unescape(href[0]).strip())
        if url.startswith("#") or url.lower().startswith(("mailto:", "tel:", "sms:")) or url == "{{ unsubscribe_url }}":
            continue
        if message := links.url_problem(url, hosts):
            compiled.findings.append(Diagnostic(message, "mjml"))
            continue
        number = len(compiled.links) + 1
        compiled.links.append(
            TrackedLink(number, links.to_ascii_url(url), _link_label(page, anchor, prepared) or url[:200])
        )
        start = anchor.start(2) + href.start()
        parts += [page[position:start], prepared.add_placeholder(f"{{{{ links[{number}] }}}}")]
        position = anchor.start(2) + href.end()
    return "".join([*parts, page[position:]])


def _link_label(page: str, anchor: re.Match[str], prepared: PreparedMjml) -> str:
    if anchor[1].lower() == "area":
        return ""
    content = page[anchor.end() : page.find("</a>", anchor.end())]
    content = re.sub(rf"<!--({prepared.prefix}\d+q)-->", r"\1", content)
    text = _TAGS.sub(" ", _COMMENTS.sub("", content))
    if not text.strip():
        text = " ".join(_ALT.findall(content))
    return " ".join(prepared.restore_written(unescape(text)).split())[:200]


def _escape_braces(text: str, prepared: PreparedMjml) -> str:
    """Escape braces that came from style sheets or entities, so that Jinja outputs them literally."""
    return re.sub(rf"\{{(?=[{{%#]|{prepared.prefix}\d)", '{{ "{" }}', text)


def _plain_text(page: str, prepared: PreparedMjml) -> str:
    from campaigns.content.rendering.plain_text import html_to_text  # imported here like css_inline

    return prepared.restore_expressions(_escape_braces(html_to_text(page), prepared))
