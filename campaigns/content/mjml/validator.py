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
    HTML,
    IN_HEAD,
    PARENTS,
    REFUSED_ATTRIBUTES,
    REMOTE_DEFAULTS,
    TABLE_PARTS,
    VERBATIM,
    refusal,
)
from campaigns.content.rendering import links
from campaigns.i18n import N_

LARGEST_SOURCE = 256 * 1024
DEEPEST = 40
MOST_ELEMENTS = 5_000
MOST_FINDINGS = 50
RTL = frozenset({"fa", "ar", "he", "ur"})
NO_ALT = N_('This image has no alt text; write alt="" when it only decorates.')
_MERGED_ATTRIBUTES = frozenset({"href", "src", "alt", "title"})
_VERBATIM = re.compile(r"<mj-style\b[^>]*>.*?(?:</mj-style|\Z)|<!--.*?(?:-->|\Z)", re.DOTALL)
_SCRIPTED = re.compile(r"javascript:|vbscript:|expression\s*\(|-moz-binding|behavior\s*:", re.IGNORECASE)
_PICTURES = frozenset({"mj-image", "img", "mj-carousel-image"})
_MASK = "\ue000"
_CONTROL = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f\ud800-\udfff\ufffe\uffff]")


@dataclass
class PreparedMjml:
    """A source that MRML accepts, and the features found in it."""

    source: str = ""
    findings: list[Diagnostic] = field(default_factory=list)
    prefix: str = "kpm"
    tokens: list[tuple[str, str]] = field(default_factory=list)
    """Per placeholder: the expression as written, and as it must appear in the page."""
    inline_css: list[str] = field(default_factory=list)
    has: set[str] = field(default_factory=set)
    head: int | None = None
    """Offset where the content of mj-head begins; None without mj-head."""
    body: int = 0
    body_end: int = 0
    preview: str = ""

    @property
    def token(self) -> re.Pattern[str]:
        return re.compile(rf"(?:<!--)?{self.prefix}(\d+)q(?:-->)?")

    def original(self, text: str) -> str:
        """Replace placeholders by the expressions as written."""
        return self.token.sub(lambda found: self.tokens[int(found[1])][0], text)

    def restored(self, text: str) -> str:
        """Replace placeholders by the expressions as they must appear in the page."""
        return self.token.sub(lambda found: self.tokens[int(found[1])][1], text)

    def add(self, written: str, standing: str | None = None) -> str:
        """Store an expression and return its placeholder."""
        self.tokens.append((written, written if standing is None else standing))
        return f"{self.prefix}{len(self.tokens) - 1}q"


def prepare(source: str, known: Collection[str], hosts: Collection[str], language: str = "en") -> PreparedMjml:
    """Check ``source`` and prepare it for MRML. Do not render it when the findings contain errors."""
    prepared = PreparedMjml()
    if len(source.encode("utf-8", "replace")) > LARGEST_SOURCE:
        size = LARGEST_SOURCE // 1024
        prepared.findings.append(Diagnostic(N_("The MJML is larger than %(size)s KB."), "mjml", params={"size": size}))
        return prepared
    source = source.replace("\r\n", "\n").replace("\r", "\n")
    if bad := _CONTROL.search(source):
        message = N_("This place holds an invisible control character; remove it.")
        prepared.findings.append(Diagnostic(message, "mjml", *SourcePosition(source).of(bad.start())))
        return prepared
    while prepared.prefix in source.lower():
        prepared.prefix += "z"
    verbatim = [found.span() for found in _VERBATIM.finditer(source)]
    found, prepared.findings = merge_expressions.scan(source, "mjml", verbatim)
    prepared.findings += merge_expressions.check(source, found, "mjml", known)
    _Validator(source, found, prepared, hosts, language).walk()
    del prepared.findings[MOST_FINDINGS:]
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
        self, source: str, found: list[MergeExpression], prepared: PreparedMjml, hosts: Collection[str], language: str
    ) -> None:
        self.source, self.found, self.prepared, self.hosts, self.language = source, found, prepared, hosts, language
        masked = list(source)
        for expression in found:
            for offset in range(expression.start, expression.end):
                if masked[offset] != "\n":
                    masked[offset] = _MASK
        self.masked = "".join(masked)
        self.place = SourcePosition(source)
        self.stack: list[_OpenElement] = []
        self.blocks: list[tuple[str, int]] = []
        self.out: list[str] = []
        self.next = 0
        self.elements = 0

    def report(self, offset: int, message: str, level: Severity = Severity.ERROR, **params: object) -> None:
        if len(self.prepared.findings) < MOST_FINDINGS:
            line, column = self.place.of(offset)
            self.prepared.findings.append(Diagnostic(message, "mjml", line, column, params, level))

    def walk(self) -> None:
        for piece in tokenizer.pieces(self.masked, frozenset({"mj-style"})):
            if len(self.prepared.findings) >= MOST_FINDINGS:
                return
            if isinstance(piece, tokenizer.StartTag):
                if not self.opening(piece):
                    return
            elif isinstance(piece, tokenizer.EndTag):
                self.closing(piece)
            elif isinstance(piece, tokenizer.Text):
                self.words(piece)
            elif isinstance(piece, tokenizer.Comment):
                self.comment(piece)
            else:
                self.report(piece.start, piece.message)
                self.skip(piece.end)
        for element in self.stack:
            self.report(element.start, N_("<%(name)s> is never closed."), name=element.name)
        for needed in ("mjml", "mj-body"):
            if needed not in self.prepared.has:
                self.report(0, N_("<%(name)s> is missing."), name=needed)
        self.prepared.source = "".join(self.out)

    @property
    def parent(self) -> str:
        return self.stack[-1].name if self.stack else ""

    # Elements

    def opening(self, tag: tokenizer.StartTag) -> bool:
        """Return False when validation must stop, because going on would be pointless or harmful."""
        self.elements += 1
        if len(self.stack) >= DEEPEST or self.elements > MOST_ELEMENTS:
            self.report(tag.start, N_("The MJML is nested too deeply or has too many elements."))
            return False
        self.standing(tag)
        self.facts(tag)
        self.out.append(f"<{tag.name}{self.attributes(tag)}")
        self.skip(tag.end)
        if tag.closed or tag.name in tokenizer.VOID:
            self.out.append(" />")
        else:
            self.out.append(">")
            self.stack.append(_OpenElement(tag.name, tag.start, self.elements))
        return True

    def standing(self, tag: tokenizer.StartTag) -> None:
        name, parent = tag.name, self.parent
        if message := refusal(name):
            self.report(tag.start, message, name=name)
        elif name.startswith("mj") and name in PARENTS:
            if parent == "mj-attributes" or (name == "mjml" and not self.stack):
                return
            if parent not in PARENTS[name]:
                allowed = ", ".join(f"<{each}>" for each in sorted(PARENTS[name])) or "—"
                message = N_("<%(name)s> cannot stand here; its place is in %(allowed)s.")
                self.report(tag.start, message, name=name, allowed=allowed)
        elif name in HTML or ":" in name:
            if parent in CONTAINERS or parent in VERBATIM or not self.stack:
                self.report(
                    tag.start,
                    N_("<%(name)s> cannot stand directly in <%(parent)s>; put it into an <mj-text>."),
                    name=name,
                    parent=parent,
                )
        elif parent != "mj-attributes" or name not in ("mj-all", "mj-class"):
            self.report(tag.start, N_("There is no element <%(name)s>."), name=name)

    def facts(self, tag: tokenizer.StartTag) -> None:
        has = self.prepared.has
        if self.parent != "mj-attributes":
            has.add(tag.name)
        if tag.name == "mj-head" and not tag.closed and self.prepared.head is None:
            self.prepared.head = tag.end
        if tag.name == "mj-body" and not self.prepared.body:
            self.prepared.body = tag.start
            if tag.closed:
                self.report(tag.start, N_("The mail is empty."))
        names = {attribute.name: attribute.value for attribute in tag.attributes}
        if tag.name == "meta" and names.get("name") == "color-scheme":
            has.add("color-scheme")
        if self.parent != "mj-attributes":
            self.doubts(tag, set(names))

    def doubts(self, tag: tokenizer.StartTag, names: set[str]) -> None:
        if tag.name in _PICTURES and "alt" not in names:
            self.report(tag.start, NO_ALT, Severity.WARNING)
        wanted = REMOTE_DEFAULTS.get(tag.name, frozenset())
        if wanted and not wanted & names:
            message = N_("<%(name)s> shows pictures from a stranger's server unless you give %(attribute)s.")
            self.report(tag.start, message, Severity.WARNING, name=tag.name, attribute=", ".join(sorted(wanted)))
        if tag.name == "mj-font":
            message = N_("Most mail programs do not load this font; name others behind it.")
            self.report(tag.start, message, Severity.WARNING)

    def closing(self, tag: tokenizer.EndTag) -> None:
        self.skip(tag.end)
        if tag.name in tokenizer.VOID:
            return
        if not any(element.name == tag.name for element in self.stack):
            self.report(tag.start, N_("</%(name)s> closes nothing."), name=tag.name)
            return
        while self.stack[-1].name != tag.name:
            element = self.stack.pop()
            line, _ = self.place.of(element.start)
            self.report(
                tag.start,
                N_("</%(name)s> stands here, but <%(open)s> of line %(line)s is still open."),
                name=tag.name,
                open=element.name,
                line=line,
            )
        self.stack.pop()
        if tag.name == "mj-body":
            self.prepared.body_end = tag.start
        self.out.append(f"</{tag.name}>")

    # Attributes

    def attributes(self, tag: tokenizer.StartTag) -> str:
        written, seen = [], set()
        for attribute in tag.attributes:
            name = attribute.name
            if _MASK in name:
                self.report(
                    attribute.start,
                    N_("A merge expression cannot stand here; inside a tag its place is a quoted value."),
                )
                self.advance(attribute.start + len(name))
                continue
            if name in seen:
                self.report(attribute.start, N_("The attribute %(name)s stands here twice."), name=name)
            elif attribute.value is None:
                self.report(attribute.start, N_("The attribute %(name)s has no value."), name=name)
            elif not attribute.quoted:
                self.report(attribute.start, N_("Put the value of %(name)s in quotes."), name=name)
            else:
                value = self.value(tag, attribute, attribute.value)
                if not (tag.name == "mj-style" and name == "inline"):
                    written.append(f' {name}="{value}"')
                elif attribute.value == "inline":
                    self.prepared.has.add("inline now")
            seen.add(name)
        if tag.name == "mjml":
            written += [f' lang="{self.language}"'] if "lang" not in seen else []
            direction = "rtl" if self.language in RTL else "ltr"
            written += [f' dir="{direction}"'] if "dir" not in seen else []
        return "".join(written)

    def value(self, tag: tokenizer.StartTag, attribute: tokenizer.Attribute, masked: str) -> str:
        name, start, end = attribute.name, attribute.start, attribute.start + len(masked)
        inside = self.advance(end)
        original = unescape(self.source[start:end])
        if name.startswith("on") or name in REFUSED_ATTRIBUTES:
            self.report(start, N_("The attribute %(name)s is not possible in a mail."), name=name)
        if _SCRIPTED.search(original) and name not in ("href", "src", "alt", "title"):
            self.report(start, N_("Scripts are not possible in a mail."))
        if inside and name not in _MERGED_ATTRIBUTES:
            self.report(start, N_("Merge expressions are not possible in the attribute %(name)s."), name=name)
        if any(not expression.is_output for expression in inside):
            self.report(start, N_("Conditions and loops are not possible inside an attribute."))
        if name in ("href", "src", "background-url", "background") and tag.name != "mj-font":
            return self.address(name, start, end, inside, original)
        return self.encoded(start, end, {each: self.prepared.add(each.source) for each in inside})

    def address(self, name: str, start: int, end: int, inside: list[MergeExpression], original: str) -> str:
        stripped = original.strip()
        if inside and stripped == inside[0].source and inside[0].inner == "unsubscribe_url" and name == "href":
            self.prepared.has.add("unsubscribe")
            return self.prepared.add("{{ unsubscribe_url }}")
        lowered = stripped.lower()
        aside = name == "href" and lowered.startswith(("#", "mailto:", "tel:", "sms:"))
        if stripped == "#":
            self.report(start, N_("This link leads nowhere yet."), Severity.WARNING)
        if not aside and (message := links.fault(stripped, self.hosts)):
            if name != "href":
                message = N_("A picture needs a public http:// or https:// address.")
            self.report(start, message)
        if re.match(r"https?://(www\.)?example\.(com|org|net)\b", lowered):
            self.report(start, N_("This still leads to the example's address."), Severity.WARNING)
        # Values inside a URL are percent-encoded, so they cannot add query parameters.
        standing = "{{ (%s) }}" if aside else "{{ (%s)|urlencode }}"
        return self.encoded(
            start, end, {each: self.prepared.add(each.source, standing % each.inner) for each in inside}, strip=True
        )

    def encoded(self, start: int, end: int, tokens: dict[MergeExpression, str], *, strip: bool = False) -> str:
        parts, position = [], start
        for expression, token in tokens.items():
            parts += [encode(self.source[position : expression.start]), token]
            position = expression.end
        text = "".join([*parts, encode(self.source[position:end])])
        return text.strip() if strip else text

    # Text, expressions, style sheets, comments

    def words(self, piece: tokenizer.Text) -> None:
        inside = self.advance(piece.end)
        text, parent = self.source[piece.start : piece.end], self.parent
        if parent == "mj-style":
            self.style(piece, text)
            return
        if parent in CONTAINERS or parent == "":
            bare = self.masked[piece.start : piece.end].replace(_MASK, " ").strip(" \t\n")
            if bare:
                message = N_("Text cannot stand directly in <%(parent)s>; put it into an <mj-text>.")
                self.report(piece.start + len(text) - len(text.lstrip()), message, parent=parent)
        if parent == "mj-preview":
            self.prepared.preview += unescape(text)
        position = piece.start
        for expression in inside:
            self.out.append(self.source[position : expression.start])
            self.out.append(self.expression(expression))
            position = expression.end
        self.out.append(self.source[position : piece.end])

    def expression(self, expression: MergeExpression) -> str:
        if expression.is_comment:
            return ""
        parent = self.parent
        only_elements = parent in CONTAINERS or parent in TABLE_PARTS or parent == "mj-table"
        heads = [element.name for element in self.stack if element.name in IN_HEAD or element.name == "mj-head"]
        if not self.stack or (heads and parent not in ("mj-title", "mj-preview")):
            self.report(expression.start, N_("A merge expression cannot stand here."))
        elif only_elements and expression.is_output:
            self.report(
                expression.start,
                N_("A merge field cannot stand directly in <%(parent)s>; put it into an <mj-text>."),
                parent=parent,
            )
        if not expression.is_output:
            self.pair(expression)
        if expression.inner == "unsubscribe_url":
            self.prepared.has.add("unsubscribe")
        token = self.prepared.add(expression.source)
        return f"<!--{token}-->" if only_elements else token

    def pair(self, expression: MergeExpression) -> None:
        """Report a block that begins and ends in different elements: it would break some mails."""
        keyword, serial = expression.keyword, self.stack[-1].serial if self.stack else 0
        if keyword in ("if", "for"):
            self.blocks.append((keyword, serial))
        elif self.blocks:
            opened, place = self.blocks.pop() if keyword.startswith("end") else self.blocks[-1]
            if place != serial:
                message = N_("%(keyword)s must stand in the same element as its %(opened)s.")
                self.report(expression.start, message, keyword=keyword, opened=opened)

    def style(self, piece: tokenizer.Text, text: str) -> None:
        if _SCRIPTED.search(text) or "@import" in text.lower():
            self.report(piece.start, N_("Scripts and imports are not possible in a style sheet."))
        if "{{" in text:
            self.report(
                piece.start + text.index("{{"), N_("Merge fields are not possible in a style sheet."), Severity.WARNING
            )
        if "prefers-color-scheme" in text:
            self.prepared.has.add("dark")
        if "inline now" in self.prepared.has:
            self.prepared.has.discard("inline now")
            self.prepared.inline_css.append(text)
        else:
            self.out.append(text)

    def comment(self, piece: tokenizer.Comment) -> None:
        text = self.source[piece.start : piece.end]
        if text.startswith(("<!--[if", "<!--<![endif")):
            if "{{" in text or "{%" in text:
                self.report(piece.start, N_("A merge expression cannot stand inside a comment."))
            if re.search(r"<\s*script|\bon\w+\s*=|javascript:", text, re.IGNORECASE):
                self.report(piece.start, N_("Scripts are not possible in a mail."))
            self.out.append(text)
        # Other comments are internal notes and are not sent to recipients.

    # Expressions are visited in source order

    def advance(self, end: int) -> list[MergeExpression]:
        first = self.next
        while self.next < len(self.found) and self.found[self.next].end <= end:
            self.next += 1
        return self.found[first : self.next]

    def skip(self, end: int) -> None:
        self.advance(end)


def encode(text: str) -> str:
    """Return an attribute value in which every character that MRML mangles is an entity."""
    out = []
    for character in text:
        if character in "\r\n\t":
            out.append(" ")
        elif character in _NAMED:
            out.append(_NAMED[character])
        elif character == "\\" or (ord(character) > 126 and unicodedata.category(character)[0] in "CZM"):
            out.append(f"&#{ord(character)};")
        else:
            out.append(character)
    return "".join(out)


_NAMED = {'"': "&quot;", "<": "&lt;", ">": "&gt;"}

_TAG = re.compile(r'<[A-Za-z](?:[^<>"]|"[^"]*")*>')
_QUOTED = re.compile(r'"([^"]*)"')


def encode_attributes(source: str) -> str:
    """Apply :func:`encode` to each attribute of a trusted source."""
    return _TAG.sub(lambda tag: _QUOTED.sub(lambda value: f'"{encode(value[1])}"', tag[0]), source)
