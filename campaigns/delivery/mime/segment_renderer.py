"""Compiler from merge templates to functions that render quoted-printable segments.

Text that is the same for all recipients is encoded once. A template of merge fields, filters, conditions and loops
becomes a flat sequence of encoded strings and closures. Any other template remains a Jinja template whose text nodes
are encoded beforehand. Both render, encoded, what :func:`campaigns.content.rendering.renderer.render` renders plain;
the tests compare them. ``tests/benchmarks/composing.py`` measures the composed mails.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from jinja2 import Environment, Template, nodes
from jinja2.visitor import NodeTransformer
from markupsafe import Markup, escape

from campaigns.content.rendering import jinja_sandbox
from campaigns.content.rendering.renderer import BLANK_LINES
from campaigns.delivery.mime import expression_compiler
from campaigns.delivery.mime.expression_compiler import Names, NotCompilable
from campaigns.delivery.mime.quoted_printable import LINE, SOFT, cell, segment

ENGAGEMENT = "_engagement"
UNSUBSCRIBE = "_unsubscribe"
"""Keys of the recipient's tokens in the render context; the values come from :func:`token_segment`."""

Pattern = Callable[[Names], str]


class EncodedMarkup(Markup):
    """Text that is already HTML-escaped and quoted-printable, so that Jinja's finalizer leaves it alone."""


def token(words: str) -> str:
    """The segment of a token. Tokens have no characters that need encoding."""
    return words + SOFT


@dataclass(frozen=True, slots=True)
class LinkTemplates:
    """URL prefixes of tracked links, pixel and unsubscription; the recipient's token follows."""

    tracking: str
    base: str
    pixel: bool
    """Whether this variant of the message carries a pixel."""
    counted: bool = True
    """Whether links lead through the tracking redirect; else they are the URLs in the context's ``links``."""


def html(source: str, addresses: LinkTemplates) -> Pattern:
    """Compile an HTML part; values are HTML-escaped."""
    return _pattern(_PartEncoder(jinja_sandbox.HTML, segment, cell, _escaped), source, addresses)


def text(source: str, addresses: LinkTemplates) -> Pattern:
    """Compile a plain text part."""
    return _pattern(_PartEncoder(jinja_sandbox.TEXT, _unrun_segment, cell, _words), source, addresses)


def line(source: str, addresses: LinkTemplates) -> Pattern:
    """Compile a subject. Its output is plain text, because a header is encoded as a whole."""
    return _pattern(_HeaderEncoder(jinja_sandbox.LINE, str, str, _words), source, addresses)


def _unrun_segment(words: str) -> str:
    return segment(BLANK_LINES.sub("\n\n", words.replace("\r\n", "\n").replace("\r", "\n")))


def _escaped(value: Any) -> str:
    return "" if value is None else str(escape(value))


def _words(value: Any) -> str:
    return "" if value is None else str(value)


@dataclass(frozen=True, slots=True)
class _PartEncoder:
    """The encoding of one part of a mail: for template text, and for merge values."""

    environment: Environment
    segment: Callable[[str], str]
    cell: Callable[[str], str]
    plain: Callable[[Any], str]

    def write(self, value: Any) -> str:
        """The segment of a merge value. Short alphanumeric ASCII, the usual case, needs no escaping or encoding."""
        if type(value) is str and value.isalnum() and value.isascii() and len(value) < LINE:
            return value + SOFT
        return self.cell(self.plain(value))

    def value(self, value: Any) -> str:
        """The same as a Jinja finalizer."""
        return value if type(value) is EncodedMarkup else EncodedMarkup(self.cell(self.plain(value)))


class _HeaderEncoder(_PartEncoder):
    """No encoding: a header line is encoded as a whole after rendering."""

    def write(self, value: Any) -> str:
        return self.plain(value)


def _pattern(part: _PartEncoder, source: str, addresses: LinkTemplates) -> Pattern:
    tree = part.environment.parse(source)
    try:
        return _TemplateCompiler(part, addresses).flat(tree.body)
    except NotCompilable:
        return _general(part, tree, addresses)


@dataclass(frozen=True, slots=True)
class _TokenSlot:
    name: str


_Piece = str | _TokenSlot | nodes.Node


def _pieces(part: _PartEncoder, body: Sequence[nodes.Node], addresses: LinkTemplates) -> Iterator[_Piece]:
    for node in body:
        if isinstance(node, nodes.Output):
            for inner in node.nodes:
                yield from _output(part, inner, addresses)
        elif (settled := _settled(node, addresses)) is not None:
            yield from _pieces(part, settled, addresses)
        else:
            yield node


def _output(part: _PartEncoder, node: nodes.Node, addresses: LinkTemplates) -> Iterator[_Piece]:
    """Split the URLs of a mail into constant text and the slot of the recipient's token."""
    match node:
        case nodes.TemplateData(data=words):
            yield words
        case nodes.Const(value=str() as words):
            yield part.plain(words)
        case nodes.Getitem(node=nodes.Name(name="links"), arg=nodes.Const(value=number)) if addresses.counted:
            yield from (part.plain(f"{addresses.tracking}/c/"), _TokenSlot(ENGAGEMENT), f"/{number}")
        case nodes.Name(name="pixel"):
            yield from (part.plain(f"{addresses.tracking}/o/"), _TokenSlot(ENGAGEMENT))
        case nodes.Name(name="unsubscribe_url"):
            yield from (part.plain(f"{addresses.base}/u/"), _TokenSlot(UNSUBSCRIBE))
        case _:
            yield node


def _settled(node: nodes.Node, addresses: LinkTemplates) -> Sequence[nodes.Node] | None:
    """The branch taken of ``{% if pixel %}``, which is constant for a variant; None for other nodes."""
    if isinstance(node, nodes.If) and isinstance(node.test, nodes.Name) and node.test.name == "pixel":
        return node.body if addresses.pixel else node.else_
    return None


def _joined(pieces: Iterator[_Piece]) -> Iterator[_Piece]:
    words = ""
    for piece in pieces:
        if isinstance(piece, str):
            words += piece
            continue
        if words:
            yield words
        words = ""
        yield piece
    if words:
        yield words


@dataclass(frozen=True, slots=True)
class _CompiledTemplate:
    pieces: Sequence[str | Pattern]

    def __call__(self, names: Names) -> str:
        return "".join([piece if type(piece) is str else piece(names) for piece in self.pieces])  # type: ignore[operator]

    def parts(self, names: Names) -> list[str]:
        found: list[str] = []
        for piece in self.pieces:
            if type(piece) is str:
                found.append(piece)
            elif type(piece) is _TokenJoin:
                found += piece.parts(names)
            else:
                found.append(piece(names))  # type: ignore[operator]
        return found


class _TokenJoin:
    """Strings with the same token between each two. One ``str.join`` renders all links of a mail."""

    __slots__ = ("chunks", "name")

    def __init__(self, name: str, chunks: list[str]) -> None:
        self.name, self.chunks = name, chunks

    def __call__(self, names: Names) -> str:
        joined: str = names[self.name].join(self.chunks)
        return joined

    def parts(self, names: Names) -> list[str]:
        found = [names[self.name]] * (2 * len(self.chunks) - 1)
        found[::2] = self.chunks
        return found


def parts(pattern: Pattern, names: Names) -> list[str]:
    """The rendered output as a list of strings. The caller joins it with others, so that a body is copied only once."""
    return pattern.parts(names) if type(pattern) is _CompiledTemplate else [pattern(names)]


@dataclass(frozen=True, slots=True)
class _TemplateCompiler:
    """Compiles a Jinja syntax tree to strings and closures. Raises NotCompilable for unsupported constructs."""

    part: "_PartEncoder"
    addresses: LinkTemplates
    bound: frozenset[str] = frozenset()
    """Variables of the enclosing loops."""

    def flat(self, body: Sequence[nodes.Node]) -> Pattern:
        """Compile a list of nodes; neighbouring strings around the same token become one :class:`_TokenJoin`."""
        pieces: list[str | Pattern] = []
        for piece in _joined(_pieces(self.part, body, self.addresses)):
            last = pieces[-1] if pieces else None
            if isinstance(piece, _TokenSlot):
                if not isinstance(last, _TokenJoin) or last.name != piece.name:
                    before = [pieces.pop()] if isinstance(last, str) else [""]
                    pieces.append(last := _TokenJoin(piece.name, before))  # type: ignore[arg-type]
                last.chunks.append("")
            elif not isinstance(piece, str):
                pieces.append(self._hole(piece))
            elif isinstance(last, _TokenJoin):
                last.chunks[-1] = self.part.segment(piece)
            else:
                pieces.append(self.part.segment(piece))
        return _CompiledTemplate(tuple(pieces))

    def _hole(self, node: nodes.Node) -> Pattern:
        if isinstance(node, nodes.If):
            return self._either(node)
        if isinstance(node, nodes.For):
            return self._loop(node)
        value, write = expression_compiler.value(node, self.bound), self.part.write
        return lambda names: write(value(names))

    def _either(self, node: nodes.If) -> Pattern:
        branches = [
            (expression_compiler.value(each.test, self.bound), self.flat(each.body)) for each in (node, *node.elif_)
        ]
        otherwise = self.flat(node.else_)

        def chosen(names: Names) -> str:
            for test, branch in branches:
                if test(names):
                    return branch(names)
            return otherwise(names)

        return chosen

    def _loop(self, node: nodes.For) -> Pattern:
        if not isinstance(node.target, nodes.Name) or node.test is not None or node.recursive:
            raise NotCompilable
        name = node.target.name
        if name in expression_compiler.RESERVED:
            raise NotCompilable
        values = expression_compiler.series(node.iter, self.bound)
        inner = _TemplateCompiler(self.part, self.addresses, self.bound | {name, "loop"})
        body, otherwise = inner.flat(node.body), self.flat(node.else_)

        def written(names: Names) -> str:
            given = list(values(names))
            if not given:
                return otherwise(names)
            own, parts, room = dict(names), [], jinja_sandbox.LARGEST_OUTPUT
            for place, each in enumerate(given):
                own[name], own["loop"] = each, (place, len(given))
                parts.append(body(own))
                room -= len(parts[-1])
                if room < 0:
                    raise jinja_sandbox.too_large()
            return "".join(parts)

        return written


def _general(part: _PartEncoder, tree: nodes.Template, addresses: LinkTemplates) -> Pattern:
    environment = part.environment.overlay(finalize=part.value)
    ready = _TextEncoder(part, addresses).visit(tree)
    template = Template.from_code(environment, environment.compile(ready), dict(environment.globals))

    def written(names: Names) -> str:
        out = jinja_sandbox.fill(template, names)
        for name, mark in _MARKS.items():
            out = out.replace(mark, names[name])
        return out

    return written


_MARKS = {ENGAGEMENT: "=[e]", UNSUBSCRIBE: "=[u]"}
"""Placeholders of tokens in encoded text. "=[" cannot occur in quoted-printable. One replacement after rendering
fills all links, instead of one template expression for each."""


class _TextEncoder(NodeTransformer):
    """Replaces the text nodes of a Jinja syntax tree by encoded ones."""

    def __init__(self, part: _PartEncoder, addresses: LinkTemplates) -> None:
        self._part = part
        self._addresses = addresses

    def visit_Output(self, node: nodes.Output) -> nodes.Node:
        node.nodes = [self._node(piece, node.lineno) for piece in _joined(_pieces(self._part, [node], self._addresses))]
        return node

    def visit_If(self, node: nodes.If) -> Any:
        settled = _settled(node, self._addresses)
        if settled is None:
            return self.generic_visit(node)
        return [self.visit(each) for each in settled]

    def _node(self, piece: _Piece, line: int) -> nodes.Expr:
        if isinstance(piece, _TokenSlot):
            return nodes.TemplateData(_MARKS[piece.name], lineno=line)
        if isinstance(piece, str):
            return nodes.TemplateData(self._part.segment(piece), lineno=line)
        assert isinstance(piece, nodes.Expr)
        return piece
