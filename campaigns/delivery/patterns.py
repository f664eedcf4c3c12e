"""Merge templates made ready for many recipients: what is the same for everybody is encoded once.

A template of fields, filters and conditions becomes a flat list of encoded chunks with holes; one
with loops stays a Jinja template whose words are encoded already. Either writes in quoted-printable
segments what :func:`campaigns.content.merge.render` writes in plain words.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from operator import eq, ne
from typing import Any

from jinja2 import Environment, Template, nodes
from jinja2.visitor import NodeTransformer
from markupsafe import Markup, escape

from campaigns.content import sandbox
from campaigns.content.merge import BLANK_LINES
from campaigns.delivery.quoted import SOFT, cell, segment

ENGAGEMENT = "_engagement"
UNSUBSCRIBE = "_unsubscribe"
"""Where a recipient's tokens stand in the names, made by :func:`token`."""

Names = Mapping[str, Any]
Pattern = Callable[[Names], str]
_Value = Callable[[Names], Any]


class Encoded(Markup):
    """Escaped and quoted-printable already."""


def token(words: str) -> Encoded:
    """A token, which has no character that would need encoding."""
    return Encoded(words + SOFT)


@dataclass(frozen=True, slots=True)
class Addresses:
    """Where links, pixel and unsubscription lead, up to the recipient's token."""

    tracking: str
    base: str
    pixel: bool
    """Whether this variant of the message carries a pixel."""


def html(source: str, addresses: Addresses) -> Pattern:
    return _pattern(_Part(sandbox.HTML, segment, cell, _escaped), source, addresses)


def text(source: str, addresses: Addresses) -> Pattern:
    return _pattern(_Part(sandbox.TEXT, _unrun_segment, cell, _words), source, addresses)


def line(source: str, addresses: Addresses) -> Pattern:
    """A subject, which is not encoded here."""
    return _pattern(_Part(sandbox.LINE, str, str, _words), source, addresses)


def _unrun_segment(words: str) -> str:
    return segment(BLANK_LINES.sub("\n\n", words.replace("\r\n", "\n").replace("\r", "\n")))


def _escaped(value: Any) -> str:
    return "" if value is None else str(escape(value))


def _words(value: Any) -> str:
    return "" if value is None else str(value)


@dataclass(frozen=True, slots=True)
class _Part:
    """How the words and the values of one part of a mail are written."""

    environment: Environment
    segment: Callable[[str], str]
    cell: Callable[[str], str]
    plain: Callable[[Any], str]

    def value(self, value: Any) -> str:
        return value if type(value) is Encoded else Encoded(self.cell(self.plain(value)))


def _pattern(part: _Part, source: str, addresses: Addresses) -> Pattern:
    tree = part.environment.parse(source)
    try:
        return _flat(part, tree.body, addresses)
    except _NotFlatError:
        return _general(part, tree, addresses)


class _NotFlatError(Exception):
    """Only Jinja itself can write this."""


@dataclass(frozen=True, slots=True)
class _Flat:
    chunks: Sequence[str]
    """With '' in the holes' places."""
    tokens: Sequence[tuple[int, str]]
    holes: Sequence[tuple[int, Pattern]]

    def __call__(self, names: Names) -> str:
        parts = list(self.chunks)
        for place, name in self.tokens:
            parts[place] = names[name]
        for place, hole in self.holes:
            parts[place] = hole(names)
        return "".join(parts)


def _flat(part: _Part, body: Sequence[nodes.Node], addresses: Addresses) -> Pattern:
    chunks: list[str] = []
    tokens: list[tuple[int, str]] = []
    holes: list[tuple[int, Pattern]] = []
    for piece in _joined(_pieces(part, body, addresses)):
        if isinstance(piece, _Token):
            tokens.append((len(chunks), piece.name))
            chunks.append("")
        elif isinstance(piece, str):
            chunks.append(part.segment(piece))
        else:
            holes.append((len(chunks), _hole(part, piece, addresses)))
            chunks.append("")
    return _Flat(tuple(chunks), tuple(tokens), tuple(holes))


@dataclass(frozen=True, slots=True)
class _Token:
    name: str


_Piece = str | _Token | nodes.Node


def _pieces(part: _Part, body: Sequence[nodes.Node], addresses: Addresses) -> Iterator[_Piece]:
    for node in body:
        if isinstance(node, nodes.Output):
            for inner in node.nodes:
                yield from _output(part, inner, addresses)
        elif (settled := _settled(node, addresses)) is not None:
            yield from _pieces(part, settled, addresses)
        else:
            yield node


def _output(part: _Part, node: nodes.Node, addresses: Addresses) -> Iterator[_Piece]:
    """The addresses of a mail are words, but for the recipient's token in their midst."""
    match node:
        case nodes.TemplateData(data=words):
            yield words
        case nodes.Const(value=str() as words):
            yield part.plain(words)
        case nodes.Getitem(node=nodes.Name(name="links"), arg=nodes.Const(value=number)):
            yield from (part.plain(f"{addresses.tracking}/c/"), _Token(ENGAGEMENT), f"/{number}")
        case nodes.Name(name="pixel"):
            yield from (part.plain(f"{addresses.tracking}/o/"), _Token(ENGAGEMENT))
        case nodes.Name(name="unsubscribe_url"):
            yield from (part.plain(f"{addresses.base}/u/"), _Token(UNSUBSCRIBE))
        case _:
            yield node


def _settled(node: nodes.Node, addresses: Addresses) -> Sequence[nodes.Node] | None:
    """The branch of a condition about the pixel, which is the same for the whole variant."""
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


def _hole(part: _Part, node: nodes.Node, addresses: Addresses) -> Pattern:
    if isinstance(node, nodes.If):
        return _either(part, node, addresses)
    value, plain, write = _value(node), part.plain, part.cell
    return lambda names: write(plain(value(names)))


def _either(part: _Part, node: nodes.If, addresses: Addresses) -> Pattern:
    branches = [(_value(each.test), _flat(part, each.body, addresses)) for each in (node, *node.elif_)]
    otherwise = _flat(part, node.else_, addresses)

    def chosen(names: Names) -> str:
        for test, branch in branches:
            if test(names):
                return branch(names)
        return otherwise(names)

    return chosen


_ROOTS = ("contact", "campaign", "organisation")


def _value(node: nodes.Node) -> _Value:
    """What an expression of fields, filters and comparisons yields. Raises _NotFlatError for others."""
    match node:
        case nodes.Getattr(node=nodes.Name(name=root), attr=key) if root in _ROOTS:
            return lambda names: names[root].get(key, "")
        case nodes.Const(value=constant):
            return lambda _names: constant
        case nodes.Filter(node=nodes.Expr() as inner, name=name, kwargs=[], dyn_args=None, dyn_kwargs=None):
            return _filtered(sandbox.FILTERS[name], _value(inner), [_value(each) for each in node.args])
        case nodes.Not(node=inner):
            negated = _value(inner)
            return lambda names: not negated(names)
        case nodes.And(left=first, right=second):
            left, right = _value(first), _value(second)
            return lambda names: left(names) and right(names)
        case nodes.Or(left=first, right=second):
            left, right = _value(first), _value(second)
            return lambda names: left(names) or right(names)
        case nodes.Compare(expr=first, ops=[nodes.Operand(op="eq" | "ne" as sign, expr=second)]):
            left, right, compared = _value(first), _value(second), eq if sign == "eq" else ne
            return lambda names: compared(left(names), right(names))
    raise _NotFlatError


def _filtered(written: Callable[..., Any], value: _Value, others: Sequence[_Value]) -> _Value:
    if not others:
        return lambda names: written(value(names))
    return lambda names: written(value(names), *(other(names) for other in others))


def _general(part: _Part, tree: nodes.Template, addresses: Addresses) -> Pattern:
    environment = part.environment.overlay(finalize=part.value)
    ready = _Encoding(part, addresses).visit(tree)
    template = Template.from_code(environment, environment.compile(ready), dict(environment.globals))

    def written(names: Names) -> str:
        out = sandbox.fill(template, names)
        for name, mark in _MARKS.items():
            out = out.replace(mark, names[name])
        return out

    return written


_MARKS = {ENGAGEMENT: "=[e]", UNSUBSCRIBE: "=[u]"}
"""Stand for the tokens among encoded words, where "=[" can't be: one replacement is cheaper than
thirty expressions."""


class _Encoding(NodeTransformer):
    """Encodes a template's words."""

    def __init__(self, part: _Part, addresses: Addresses) -> None:
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
        if isinstance(piece, _Token):
            return nodes.TemplateData(_MARKS[piece.name], lineno=line)
        if isinstance(piece, str):
            return nodes.TemplateData(self._part.segment(piece), lineno=line)
        assert isinstance(piece, nodes.Expr)
        return piece
