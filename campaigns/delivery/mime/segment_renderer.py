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
from campaigns.content.rendering.renderer import EXTRA_BLANK_LINES
from campaigns.delivery.mime import expression_compiler
from campaigns.delivery.mime.expression_compiler import RenderContext, UnsupportedTemplateError
from campaigns.delivery.mime.quoted_printable import MAX_LINE, SOFT_BREAK, encode_segment, encode_value

ENGAGEMENT = "_engagement"
UNSUBSCRIBE = "_unsubscribe"
"""Keys of the recipient's tokens in the render context; the values come from :func:`token_segment`."""

RenderFunction = Callable[[RenderContext], str]


class EncodedMarkup(Markup):
    """Text that is already HTML-escaped and quoted-printable, so that Jinja's finalizer leaves it alone."""


def token_segment(value: str) -> str:
    """The segment of a token. Tokens have no characters that need encoding."""
    return value + SOFT_BREAK


@dataclass(frozen=True, slots=True)
class LinkTemplates:
    """URL prefixes of tracked links, pixel and unsubscription; the recipient's token follows."""

    tracking_url: str
    base_url: str
    has_pixel: bool
    """Whether this variant of the message carries a pixel."""
    through_redirect: bool = True
    """Whether links lead through the tracking redirect; else they are the URLs in the context's ``links``."""


def compile_html(source: str, link_templates: LinkTemplates) -> RenderFunction:
    """Compile an HTML part; values are HTML-escaped."""
    return _compile(
        _PartEncoder(jinja_sandbox.HTML_ENVIRONMENT, encode_segment, encode_value, _escape_value),
        source,
        link_templates,
    )


def compile_text(source: str, link_templates: LinkTemplates) -> RenderFunction:
    """Compile a plain text part."""
    return _compile(
        _PartEncoder(jinja_sandbox.TEXT_ENVIRONMENT, _collapse_and_encode, encode_value, _value_text),
        source,
        link_templates,
    )


def compile_subject(source: str, link_templates: LinkTemplates) -> RenderFunction:
    """Compile a subject. Its output is plain text, because a header is encoded as a whole."""
    return _compile(_HeaderEncoder(jinja_sandbox.LINE_ENVIRONMENT, str, str, _value_text), source, link_templates)


def _collapse_and_encode(text: str) -> str:
    return encode_segment(EXTRA_BLANK_LINES.sub("\n\n", text.replace("\r\n", "\n").replace("\r", "\n")))


def _escape_value(value: Any) -> str:
    return "" if value is None else str(escape(value))


def _value_text(value: Any) -> str:
    return "" if value is None else str(value)


@dataclass(frozen=True, slots=True)
class _PartEncoder:
    """The encoding of one part of a mail: for template text, and for merge values."""

    environment: Environment
    encode_segment: Callable[[str], str]
    encode_value: Callable[[str], str]
    to_text: Callable[[Any], str]

    def render_value(self, value: Any) -> str:
        """The segment of a merge value. Short alphanumeric ASCII, the usual case, needs no escaping or encoding."""
        if type(value) is str and value.isalnum() and value.isascii() and len(value) < MAX_LINE:
            return value + SOFT_BREAK
        return self.encode_value(self.to_text(value))

    def finalize_value(self, value: Any) -> str:
        """The same as a Jinja finalizer."""
        return value if type(value) is EncodedMarkup else EncodedMarkup(self.encode_value(self.to_text(value)))


class _HeaderEncoder(_PartEncoder):
    """No encoding: a header line is encoded as a whole after rendering."""

    def render_value(self, value: Any) -> str:
        return self.to_text(value)


def _compile(part: _PartEncoder, source: str, link_templates: LinkTemplates) -> RenderFunction:
    tree = part.environment.parse(source)
    try:
        return _TemplateCompiler(part, link_templates).compile_body(tree.body)
    except UnsupportedTemplateError:
        return _compile_with_jinja(part, tree, link_templates)


@dataclass(frozen=True, slots=True)
class _TokenSlot:
    name: str


_Piece = str | _TokenSlot | nodes.Node


def _flatten(part: _PartEncoder, body: Sequence[nodes.Node], link_templates: LinkTemplates) -> Iterator[_Piece]:
    for node in body:
        if isinstance(node, nodes.Output):
            for inner in node.nodes:
                yield from _flatten_output(part, inner, link_templates)
        elif (branch := _pixel_branch(node, link_templates)) is not None:
            yield from _flatten(part, branch, link_templates)
        else:
            yield node


def _flatten_output(part: _PartEncoder, node: nodes.Node, link_templates: LinkTemplates) -> Iterator[_Piece]:
    """Split the URLs of a mail into constant text and the slot of the recipient's token."""
    match node:
        case nodes.TemplateData(data=words):
            yield words
        case nodes.Const(value=str() as words):
            yield part.to_text(words)
        case nodes.Getitem(node=nodes.Name(name="links"), arg=nodes.Const(value=number)) if (
            link_templates.through_redirect
        ):
            yield from (part.to_text(f"{link_templates.tracking_url}/c/"), _TokenSlot(ENGAGEMENT), f"/{number}")
        case nodes.Name(name="pixel"):
            yield from (part.to_text(f"{link_templates.tracking_url}/o/"), _TokenSlot(ENGAGEMENT))
        case nodes.Name(name="unsubscribe_url"):
            yield from (part.to_text(f"{link_templates.base_url}/u/"), _TokenSlot(UNSUBSCRIBE))
        case _:
            yield node


def _pixel_branch(node: nodes.Node, link_templates: LinkTemplates) -> Sequence[nodes.Node] | None:
    """The branch taken of ``{% if pixel %}``, which is constant for a variant; None for other nodes."""
    if isinstance(node, nodes.If) and isinstance(node.test, nodes.Name) and node.test.name == "pixel":
        return node.body if link_templates.has_pixel else node.else_
    return None


def _merge_strings(pieces: Iterator[_Piece]) -> Iterator[_Piece]:
    text = ""
    for piece in pieces:
        if isinstance(piece, str):
            text += piece
            continue
        if text:
            yield text
        text = ""
        yield piece
    if text:
        yield text


@dataclass(frozen=True, slots=True)
class _CompiledTemplate:
    pieces: Sequence[str | RenderFunction]

    def __call__(self, names: RenderContext) -> str:
        return "".join([piece if type(piece) is str else piece(names) for piece in self.pieces])  # type: ignore[operator]

    def parts(self, names: RenderContext) -> list[str]:
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

    def __call__(self, names: RenderContext) -> str:
        joined: str = names[self.name].join(self.chunks)
        return joined

    def parts(self, names: RenderContext) -> list[str]:
        alternating = [names[self.name]] * (2 * len(self.chunks) - 1)
        alternating[::2] = self.chunks
        return alternating


def render_parts(render: RenderFunction, names: RenderContext) -> list[str]:
    """The rendered output as a list of strings. The caller joins it with others, so that a body is copied only once."""
    return render.parts(names) if type(render) is _CompiledTemplate else [render(names)]


@dataclass(frozen=True, slots=True)
class _TemplateCompiler:
    """Compiles a Jinja syntax tree to strings and closures. Raises UnsupportedTemplateError."""

    part: "_PartEncoder"
    link_templates: LinkTemplates
    loop_variables: frozenset[str] = frozenset()
    """Variables of the enclosing loops."""

    def compile_body(self, body: Sequence[nodes.Node]) -> RenderFunction:
        """Compile a list of nodes; neighbouring strings around the same token become one :class:`_TokenJoin`."""
        pieces: list[str | RenderFunction] = []
        for piece in _merge_strings(_flatten(self.part, body, self.link_templates)):
            last = pieces[-1] if pieces else None
            if isinstance(piece, _TokenSlot):
                if not isinstance(last, _TokenJoin) or last.name != piece.name:
                    before = [pieces.pop()] if isinstance(last, str) else [""]
                    pieces.append(last := _TokenJoin(piece.name, before))  # type: ignore[arg-type]
                last.chunks.append("")
            elif not isinstance(piece, str):
                pieces.append(self._compile_node(piece))
            elif isinstance(last, _TokenJoin):
                last.chunks[-1] = self.part.encode_segment(piece)
            else:
                pieces.append(self.part.encode_segment(piece))
        return _CompiledTemplate(tuple(pieces))

    def _compile_node(self, node: nodes.Node) -> RenderFunction:
        if isinstance(node, nodes.If):
            return self._compile_if(node)
        if isinstance(node, nodes.For):
            return self._compile_for(node)
        value, write = expression_compiler.compile_expression(node, self.loop_variables), self.part.render_value
        return lambda names: write(value(names))

    def _compile_if(self, node: nodes.If) -> RenderFunction:
        branches = [
            (expression_compiler.compile_expression(each.test, self.loop_variables), self.compile_body(each.body))
            for each in (node, *node.elif_)
        ]
        otherwise = self.compile_body(node.else_)

        def render(names: RenderContext) -> str:
            for test, branch in branches:
                if test(names):
                    return branch(names)
            return otherwise(names)

        return render

    def _compile_for(self, node: nodes.For) -> RenderFunction:
        if not isinstance(node.target, nodes.Name) or node.test is not None or node.recursive:
            raise UnsupportedTemplateError
        name = node.target.name
        if name in expression_compiler.RESERVED_NAMES:
            raise UnsupportedTemplateError
        values = expression_compiler.compile_iterable(node.iter, self.loop_variables)
        inner = _TemplateCompiler(self.part, self.link_templates, self.loop_variables | {name, "loop"})
        body, otherwise = inner.compile_body(node.body), self.compile_body(node.else_)

        def render(names: RenderContext) -> str:
            items = list(values(names))
            if not items:
                return otherwise(names)
            loop_context, parts, remaining = dict(names), [], jinja_sandbox.MAX_OUTPUT_LENGTH
            for index, each in enumerate(items):
                loop_context[name], loop_context["loop"] = each, (index, len(items))
                parts.append(body(loop_context))
                remaining -= len(parts[-1])
                if remaining < 0:
                    raise jinja_sandbox.output_too_large()
            return "".join(parts)

        return render


def _compile_with_jinja(part: _PartEncoder, tree: nodes.Template, link_templates: LinkTemplates) -> RenderFunction:
    environment = part.environment.overlay(finalize=part.finalize_value)
    encoded_tree = _TextEncoder(part, link_templates).visit(tree)
    template = Template.from_code(environment, environment.compile(encoded_tree), dict(environment.globals))

    def render(names: RenderContext) -> str:
        out = jinja_sandbox.render_limited(template, names)
        for name, mark in _TOKEN_PLACEHOLDERS.items():
            out = out.replace(mark, names[name])
        return out

    return render


_TOKEN_PLACEHOLDERS = {ENGAGEMENT: "=[e]", UNSUBSCRIBE: "=[u]"}
"""Placeholders of tokens in encoded text. "=[" cannot occur in quoted-printable. One replacement after rendering
fills all links, instead of one template expression for each."""


class _TextEncoder(NodeTransformer):
    """Replaces the text nodes of a Jinja syntax tree by encoded ones."""

    def __init__(self, part: _PartEncoder, link_templates: LinkTemplates) -> None:
        self._part = part
        self._link_templates = link_templates

    def visit_Output(self, node: nodes.Output) -> nodes.Node:
        node.nodes = [
            self._to_node(piece, node.lineno)
            for piece in _merge_strings(_flatten(self._part, [node], self._link_templates))
        ]
        return node

    def visit_If(self, node: nodes.If) -> Any:
        branch = _pixel_branch(node, self._link_templates)
        if branch is None:
            return self.generic_visit(node)
        return [self.visit(each) for each in branch]

    def _to_node(self, piece: _Piece, line: int) -> nodes.Expr:
        if isinstance(piece, _TokenSlot):
            return nodes.TemplateData(_TOKEN_PLACEHOLDERS[piece.name], lineno=line)
        if isinstance(piece, str):
            return nodes.TemplateData(self._part.encode_segment(piece), lineno=line)
        assert isinstance(piece, nodes.Expr)
        return piece
