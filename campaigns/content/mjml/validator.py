"""MJML validator: checks a source, prepares it for MRML, and renders it.

MRML mangles merge expressions, so placeholders replace them: a comment where only elements are allowed, a word
elsewhere. :class:`PreparedMjml` maps each placeholder to its expression.
"""

import re
import unicodedata
from collections.abc import Collection
from dataclasses import dataclass, field
from html import unescape

from campaigns.content.mjml import merge_expressions, tokenizer
from campaigns.content.mjml.diagnostics import Diagnostic, Severity, SourcePosition
from campaigns.content.mjml.merge_expressions import MergeExpression
from campaigns.content.mjml.schema import (
    CONTAINERS,
    HEAD_ELEMENTS,
    HTML_ELEMENTS,
    PARENTS,
    REFUSED_ATTRIBUTES,
    REMOTE_DEFAULTS,
    TABLE_PARTS,
    TEXT_ONLY,
    refusal_reason,
)
from campaigns.content.rendering import links
from campaigns.i18n import N_

MAX_SOURCE_BYTES = 256 * 1024
MAX_DEPTH = 40
MAX_ELEMENTS = 5_000
MAX_FINDINGS = 50
RTL_LANGUAGES = frozenset({"fa", "ar", "he", "ur"})
MISSING_ALT = N_('This image has no alt text; write alt="" when it only decorates.')
_MERGED_ATTRIBUTES = frozenset({"href", "src", "alt", "title"})
_UNPARSED = re.compile(r"<mj-style\b[^>]*>.*?(?:</mj-style|\Z)|<!--.*?(?:-->|\Z)", re.DOTALL)
_SCRIPTED = re.compile(r"javascript:|vbscript:|expression\s*\(|-moz-binding|behavior\s*:", re.IGNORECASE)
_IMAGE_ELEMENTS = frozenset({"mj-image", "img", "mj-carousel-image"})
_MASK = "\ue000"
_CONTROL = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f\ud800-\udfff\ufffe\uffff]")


@dataclass
class PreparedMjml:
    """A source that MRML accepts, and the features found in it."""

    source: str = ""
    findings: list[Diagnostic] = field(default_factory=list)
    prefix: str = "kpm"
    placeholders: list[tuple[str, str]] = field(default_factory=list)
    """Per placeholder: the expression as written, and as it must appear in the page."""
    inline_css: list[str] = field(default_factory=list)
    features: set[str] = field(default_factory=set)
    head_offset: int | None = None
    """Offset where the content of mj-head begins; None without mj-head."""
    body_offset: int = 0
    body_end_offset: int = 0
    preview: str = ""

    @property
    def placeholder_pattern(self) -> re.Pattern[str]:
        return re.compile(rf"(?:<!--)?{self.prefix}(\d+)q(?:-->)?")

    def restore_written(self, text: str) -> str:
        """Replace placeholders by the expressions as written."""
        return self.placeholder_pattern.sub(lambda found: self.placeholders[int(found[1])][0], text)

    def restore_expressions(self, text: str) -> str:
        """Replace placeholders by the expressions as they must appear in the page."""
        return self.placeholder_pattern.sub(lambda found: self.placeholders[int(found[1])][1], text)

    def add_placeholder(self, written: str, in_page: str | None = None) -> str:
        """Store an expression and return its placeholder."""
        self.placeholders.append((written, written if in_page is None else in_page))
        return f"{self.prefix}{len(self.placeholders) - 1}q"


def validate_and_prepare(
    source: str, known: Collection[str], hosts: Collection[str], language: str = "en"
) -> PreparedMjml:
    """Check ``source`` and prepare it for MRML. Do not render it when the findings contain errors."""
    prepared = PreparedMjml()
    if len(source.encode("utf-8", "replace")) > MAX_SOURCE_BYTES:
        size = MAX_SOURCE_BYTES // 1024
        prepared.findings.append(Diagnostic(N_("The MJML is larger than %(size)s KB."), "mjml", params={"size": size}))
        return prepared
    source = source.replace("\r\n", "\n").replace("\r", "\n")
    if control_character := _CONTROL.search(source):
        message = N_("This place holds an invisible control character; remove it.")
        prepared.findings.append(
            Diagnostic(message, "mjml", *SourcePosition(source).line_and_column(control_character.start()))
        )
        return prepared
    while prepared.prefix in source.lower():
        prepared.prefix += "z"
    skipped = [found.span() for found in _UNPARSED.finditer(source)]
    expressions, prepared.findings = merge_expressions.scan_expressions(source, "mjml", skipped)
    prepared.findings += merge_expressions.check_expressions(source, expressions, "mjml", known)
    _Validator(source, expressions, prepared, hosts, language).run()
    del prepared.findings[MAX_FINDINGS:]
    return prepared


def render(prepared: PreparedMjml) -> str:
    """Return MRML's HTML with placeholders. Raises ValueError when MRML refuses the source."""
    try:
        from mjml import mjml2html  # imported here so that a worker that only sends does not load it

        return str(mjml2html(prepared.source, fonts={}, include_loader=None))
    except BaseException as error:  # MRML's Rust panics are raised as BaseException
        if isinstance(error, KeyboardInterrupt | SystemExit):
            raise
        raise ValueError(str(error)) from error


@dataclass
class _OpenElement:
    name: str
    start: int
    serial: int


class _Validator:
    """One pass over the tokens: reports problems and writes the prepared source."""

    def __init__(
        self,
        source: str,
        expressions: list[MergeExpression],
        prepared: PreparedMjml,
        hosts: Collection[str],
        language: str,
    ) -> None:
        self.source, self.expressions, self.prepared, self.hosts, self.language = (
            source,
            expressions,
            prepared,
            hosts,
            language,
        )
        masked = list(source)
        for expression in expressions:
            for offset in range(expression.start, expression.end):
                if masked[offset] != "\n":
                    masked[offset] = _MASK
        self.masked = "".join(masked)
        self.positions = SourcePosition(source)
        self.stack: list[_OpenElement] = []
        self.open_blocks: list[tuple[str, int]] = []
        self.output: list[str] = []
        self.next_expression = 0
        self.element_count = 0

    def report(self, offset: int, message: str, level: Severity = Severity.ERROR, **params: object) -> None:
        if len(self.prepared.findings) < MAX_FINDINGS:
            line, column = self.positions.line_and_column(offset)
            self.prepared.findings.append(Diagnostic(message, "mjml", line, column, params, level))

    def run(self) -> None:
        for token in tokenizer.tokenize(self.masked, frozenset({"mj-style"})):
            if len(self.prepared.findings) >= MAX_FINDINGS:
                return
            if isinstance(token, tokenizer.StartTag):
                if not self.handle_start_tag(token):
                    return
            elif isinstance(token, tokenizer.EndTag):
                self.handle_end_tag(token)
            elif isinstance(token, tokenizer.Text):
                self.handle_text(token)
            elif isinstance(token, tokenizer.Comment):
                self.handle_comment(token)
            else:
                self.report(token.start, token.message)
                self.skip_expressions(token.end)
        for element in self.stack:
            self.report(element.start, N_("<%(name)s> is never closed."), name=element.name)
        for required in ("mjml", "mj-body"):
            if required not in self.prepared.features:
                self.report(0, N_("<%(name)s> is missing."), name=required)
        self.prepared.source = "".join(self.output)

    @property
    def parent(self) -> str:
        return self.stack[-1].name if self.stack else ""

    # Elements

    def handle_start_tag(self, tag: tokenizer.StartTag) -> bool:
        """Return False when validation must stop, because going on would be pointless or harmful."""
        self.element_count += 1
        if len(self.stack) >= MAX_DEPTH or self.element_count > MAX_ELEMENTS:
            self.report(tag.start, N_("The MJML is nested too deeply or has too many elements."))
            return False
        self.check_placement(tag)
        self.record_features(tag)
        self.output.append(f"<{tag.name}{self.prepare_attributes(tag)}")
        self.skip_expressions(tag.end)
        if tag.self_closing or tag.name in tokenizer.VOID:
            self.output.append(" />")
        else:
            self.output.append(">")
            self.stack.append(_OpenElement(tag.name, tag.start, self.element_count))
        return True

    def check_placement(self, tag: tokenizer.StartTag) -> None:
        name, parent = tag.name, self.parent
        if message := refusal_reason(name):
            self.report(tag.start, message, name=name)
        elif name.startswith("mj") and name in PARENTS:
            if parent == "mj-attributes" or (name == "mjml" and not self.stack):
                return
            if parent not in PARENTS[name]:
                allowed = ", ".join(f"<{each}>" for each in sorted(PARENTS[name])) or "—"
                message = N_("<%(name)s> cannot stand here; its place is in %(allowed)s.")
                self.report(tag.start, message, name=name, allowed=allowed)
        elif name in HTML_ELEMENTS or ":" in name:
            if parent in CONTAINERS or parent in TEXT_ONLY or not self.stack:
                self.report(
                    tag.start,
                    N_("<%(name)s> cannot stand directly in <%(parent)s>; put it into an <mj-text>."),
                    name=name,
                    parent=parent,
                )
        elif parent != "mj-attributes" or name not in ("mj-all", "mj-class"):
            self.report(tag.start, N_("There is no element <%(name)s>."), name=name)

    def record_features(self, tag: tokenizer.StartTag) -> None:
        features = self.prepared.features
        if self.parent != "mj-attributes":
            features.add(tag.name)
        if tag.name == "mj-head" and not tag.self_closing and self.prepared.head_offset is None:
            self.prepared.head_offset = tag.end
        if tag.name == "mj-body" and not self.prepared.body_offset:
            self.prepared.body_offset = tag.start
            if tag.self_closing:
                self.report(tag.start, N_("The mail is empty."))
        names = {attribute.name: attribute.value for attribute in tag.attributes}
        if tag.name == "meta" and names.get("name") == "color-scheme":
            features.add("color-scheme")
        if self.parent != "mj-attributes":
            self.add_warnings(tag, set(names))

    def add_warnings(self, tag: tokenizer.StartTag, names: set[str]) -> None:
        if tag.name in _IMAGE_ELEMENTS and "alt" not in names:
            self.report(tag.start, MISSING_ALT, Severity.WARNING)
        required = REMOTE_DEFAULTS.get(tag.name, frozenset())
        if required and not required & names:
            message = N_("<%(name)s> shows pictures from a stranger's server unless you give %(attribute)s.")
            self.report(tag.start, message, Severity.WARNING, name=tag.name, attribute=", ".join(sorted(required)))
        if tag.name == "mj-font":
            message = N_("Most mail programs do not load this font; name others behind it.")
            self.report(tag.start, message, Severity.WARNING)

    def handle_end_tag(self, tag: tokenizer.EndTag) -> None:
        self.skip_expressions(tag.end)
        if tag.name in tokenizer.VOID:
            return
        if not any(element.name == tag.name for element in self.stack):
            self.report(tag.start, N_("</%(name)s> closes nothing."), name=tag.name)
            return
        while self.stack[-1].name != tag.name:
            element = self.stack.pop()
            line, _ = self.positions.line_and_column(element.start)
            self.report(
                tag.start,
                N_("</%(name)s> stands here, but <%(open)s> of line %(line)s is still open."),
                name=tag.name,
                open=element.name,
                line=line,
            )
        self.stack.pop()
        if tag.name == "mj-body":
            self.prepared.body_end_offset = tag.start
        self.output.append(f"</{tag.name}>")

    # Attributes

    def prepare_attributes(self, tag: tokenizer.StartTag) -> str:
        written, seen = [], set()
        for attribute in tag.attributes:
            name = attribute.name
            if _MASK in name:
                self.report(
                    attribute.start,
                    N_("A merge expression cannot stand here; inside a tag its place is a quoted value."),
                )
                self.take_expressions(attribute.start + len(name))
                continue
            if name in seen:
                self.report(attribute.start, N_("The attribute %(name)s stands here twice."), name=name)
            elif attribute.value is None:
                self.report(attribute.start, N_("The attribute %(name)s has no value."), name=name)
            elif not attribute.quoted:
                self.report(attribute.start, N_("Put the value of %(name)s in quotes."), name=name)
            else:
                value = self.prepare_value(tag, attribute, attribute.value)
                if not (tag.name == "mj-style" and name == "inline"):
                    written.append(f' {name}="{value}"')
                elif attribute.value == "inline":
                    self.prepared.features.add("inline now")
            seen.add(name)
        if tag.name == "mjml":
            written += [f' lang="{self.language}"'] if "lang" not in seen else []
            direction = "rtl" if self.language in RTL_LANGUAGES else "ltr"
            written += [f' dir="{direction}"'] if "dir" not in seen else []
        return "".join(written)

    def prepare_value(self, tag: tokenizer.StartTag, attribute: tokenizer.Attribute, masked: str) -> str:
        name, start, end = attribute.name, attribute.start, attribute.start + len(masked)
        expressions = self.take_expressions(end)
        original = unescape(self.source[start:end])
        if name.startswith("on") or name in REFUSED_ATTRIBUTES:
            self.report(start, N_("The attribute %(name)s is not possible in a mail."), name=name)
        if _SCRIPTED.search(original) and name not in ("href", "src", "alt", "title"):
            self.report(start, N_("Scripts are not possible in a mail."))
        if expressions and name not in _MERGED_ATTRIBUTES:
            self.report(start, N_("Merge expressions are not possible in the attribute %(name)s."), name=name)
        if any(not expression.is_output for expression in expressions):
            self.report(start, N_("Conditions and loops are not possible inside an attribute."))
        if name in ("href", "src", "background-url", "background") and tag.name != "mj-font":
            return self.prepare_url(name, start, end, expressions, original)
        return self.encode_span(start, end, {each: self.prepared.add_placeholder(each.source) for each in expressions})

    def prepare_url(self, name: str, start: int, end: int, expressions: list[MergeExpression], original: str) -> str:
        stripped = original.strip()
        if (
            expressions
            and stripped == expressions[0].source
            and expressions[0].inner == "unsubscribe_url"
            and name == "href"
        ):
            self.prepared.features.add("unsubscribe")
            return self.prepared.add_placeholder("{{ unsubscribe_url }}")
        lowered = stripped.lower()
        is_untracked = name == "href" and lowered.startswith(("#", "mailto:", "tel:", "sms:"))
        if stripped == "#":
            self.report(start, N_("This link leads nowhere yet."), Severity.WARNING)
        if not is_untracked and (message := links.url_problem(stripped, self.hosts)):
            if name != "href":
                message = N_("A picture needs a public http:// or https:// address.")
            self.report(start, message)
        if re.match(r"https?://(www\.)?example\.(com|org|net)\b", lowered):
            self.report(start, N_("This still leads to the example's address."), Severity.WARNING)
        # Values inside a URL are percent-encoded, so they cannot add query parameters.
        in_page = "{{ (%s) }}" if is_untracked else "{{ (%s)|urlencode }}"
        return self.encode_span(
            start,
            end,
            {each: self.prepared.add_placeholder(each.source, in_page % each.inner) for each in expressions},
            strip=True,
        )

    def encode_span(
        self, start: int, end: int, placeholders: dict[MergeExpression, str], *, strip: bool = False
    ) -> str:
        parts, position = [], start
        for expression, token in placeholders.items():
            parts += [encode(self.source[position : expression.start]), token]
            position = expression.end
        text = "".join([*parts, encode(self.source[position:end])])
        return text.strip() if strip else text

    # Text, expressions, style sheets, comments

    def handle_text(self, token: tokenizer.Text) -> None:
        expressions = self.take_expressions(token.end)
        text, parent = self.source[token.start : token.end], self.parent
        if parent == "mj-style":
            self.handle_style(token, text)
            return
        if parent in CONTAINERS or parent == "":
            bare = self.masked[token.start : token.end].replace(_MASK, " ").strip(" \t\n")
            if bare:
                message = N_("Text cannot stand directly in <%(parent)s>; put it into an <mj-text>.")
                self.report(token.start + len(text) - len(text.lstrip()), message, parent=parent)
        if parent == "mj-preview":
            self.prepared.preview += unescape(text)
        position = token.start
        for expression in expressions:
            self.output.append(self.source[position : expression.start])
            self.output.append(self.prepare_expression(expression))
            position = expression.end
        self.output.append(self.source[position : token.end])

    def prepare_expression(self, expression: MergeExpression) -> str:
        if expression.is_comment:
            return ""
        parent = self.parent
        only_elements = parent in CONTAINERS or parent in TABLE_PARTS or parent == "mj-table"
        head_elements = [
            element.name for element in self.stack if element.name in HEAD_ELEMENTS or element.name == "mj-head"
        ]
        if not self.stack or (head_elements and parent not in ("mj-title", "mj-preview")):
            self.report(expression.start, N_("A merge expression cannot stand here."))
        elif only_elements and expression.is_output:
            self.report(
                expression.start,
                N_("A merge field cannot stand directly in <%(parent)s>; put it into an <mj-text>."),
                parent=parent,
            )
        if not expression.is_output:
            self.check_pairing(expression)
        if expression.inner == "unsubscribe_url":
            self.prepared.features.add("unsubscribe")
        token = self.prepared.add_placeholder(expression.source)
        return f"<!--{token}-->" if only_elements else token

    def check_pairing(self, expression: MergeExpression) -> None:
        """Report a block that begins and ends in different elements: it would break some mails."""
        keyword, serial = expression.keyword, self.stack[-1].serial if self.stack else 0
        if keyword in ("if", "for"):
            self.open_blocks.append((keyword, serial))
        elif self.open_blocks:
            opened, place = self.open_blocks.pop() if keyword.startswith("end") else self.open_blocks[-1]
            if place != serial:
                message = N_("%(keyword)s must stand in the same element as its %(opened)s.")
                self.report(expression.start, message, keyword=keyword, opened=opened)

    def handle_style(self, token: tokenizer.Text, text: str) -> None:
        if _SCRIPTED.search(text) or "@import" in text.lower():
            self.report(token.start, N_("Scripts and imports are not possible in a style sheet."))
        if "{{" in text:
            self.report(
                token.start + text.index("{{"), N_("Merge fields are not possible in a style sheet."), Severity.WARNING
            )
        if "prefers-color-scheme" in text:
            self.prepared.features.add("dark")
        if "inline now" in self.prepared.features:
            self.prepared.features.discard("inline now")
            self.prepared.inline_css.append(text)
        else:
            self.output.append(text)

    def handle_comment(self, token: tokenizer.Comment) -> None:
        text = self.source[token.start : token.end]
        if text.startswith(("<!--[if", "<!--<![endif")):
            if "{{" in text or "{%" in text:
                self.report(token.start, N_("A merge expression cannot stand inside a comment."))
            if re.search(r"<\s*script|\bon\w+\s*=|javascript:", text, re.IGNORECASE):
                self.report(token.start, N_("Scripts are not possible in a mail."))
            self.output.append(text)
        # Other comments are internal notes and are not sent to recipients.

    # Expressions are visited in source order

    def take_expressions(self, end: int) -> list[MergeExpression]:
        first = self.next_expression
        while self.next_expression < len(self.expressions) and self.expressions[self.next_expression].end <= end:
            self.next_expression += 1
        return self.expressions[first : self.next_expression]

    def skip_expressions(self, end: int) -> None:
        self.take_expressions(end)


def encode(text: str) -> str:
    """Return an attribute value in which every character that MRML mangles is an entity."""
    out = []
    for character in text:
        if character in "\r\n\t":
            out.append(" ")
        elif character in _ENTITIES:
            out.append(_ENTITIES[character])
        elif character == "\\" or (ord(character) > 126 and unicodedata.category(character)[0] in "CZM"):
            out.append(f"&#{ord(character)};")
        else:
            out.append(character)
    return "".join(out)


_ENTITIES = {'"': "&quot;", "<": "&lt;", ">": "&gt;"}

_TAG = re.compile(r'<[A-Za-z](?:[^<>"]|"[^"]*")*>')
_QUOTED = re.compile(r'"([^"]*)"')


def encode_attributes(source: str) -> str:
    """Apply :func:`encode` to each attribute of a trusted source."""
    return _TAG.sub(lambda tag: _QUOTED.sub(lambda value: f'"{encode(value[1])}"', tag[0]), source)
