"""Compiler from Jinja expressions to Python closures, so that rendering a mail does not run Jinja.

Supported are merge fields, filters, comparisons, boolean operators, and the variables and counters of loops.
Everything else raises UnsupportedTemplateError. Results equal those of
:mod:`campaigns.content.rendering.jinja_sandbox`.
``tests/benchmarks/composing.py`` measures mails rendered this way.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from operator import eq, ne
from typing import Any

from jinja2 import nodes

from campaigns.content.rendering import jinja_sandbox

RenderContext = Mapping[str, Any]
Evaluator = Callable[[RenderContext], Any]
FIELD_ROOTS = ("contact", "campaign", "organisation")
RESERVED_NAMES = frozenset({*FIELD_ROOTS, "links", "pixel", "unsubscribe_url", "loop", "range"})
"""Names that a loop variable must not shadow."""


class UnsupportedTemplateError(Exception):
    """The template uses a construct that only Jinja itself can render."""


_LOOP_COUNTERS: Mapping[str, Callable[[int, int], Any]] = {
    "index": lambda place, _length: place + 1,
    "index0": lambda place, _length: place,
    "first": lambda place, _length: place == 0,
    "last": lambda place, length: place == length - 1,
    "length": lambda _place, length: length,
    "revindex": lambda place, length: length - place,
    "revindex0": lambda place, length: length - place - 1,
}


def compile_expression(node: nodes.Node, bound: frozenset[str] = frozenset()) -> Evaluator:
    """A closure from the render context to the expression's value.

    ``bound`` are the variables of the enclosing loops. Raises UnsupportedTemplateError.
    """
    match node:
        case nodes.Getattr(node=nodes.Name(name=root), attr=key) if root in FIELD_ROOTS:
            return lambda names: names[root].get(key, "")
        case nodes.Getitem(node=nodes.Name(name="links"), arg=nodes.Const(value=number)):
            return lambda names: names["links"].get(number, "")
        case nodes.Getattr(node=nodes.Name(name="loop"), attr=key) if "loop" in bound and key in _LOOP_COUNTERS:
            counter = _LOOP_COUNTERS[key]
            return lambda names: counter(*names["loop"])
        case nodes.Name(name=name) if name in bound and name != "loop":
            return lambda names: names[name]
        case nodes.Const(value=constant):
            return lambda _names: constant
        case nodes.Filter(node=nodes.Expr() as inner, name=name, kwargs=[], dyn_args=None, dyn_kwargs=None):
            written, operand = jinja_sandbox.FILTERS[name], compile_expression(inner, bound)
            constants = [each.value for each in node.args if isinstance(each, nodes.Const)]
            if len(constants) == len(node.args):  # The usual case: constant arguments need no evaluation per mail.
                return lambda names: written(operand(names), *constants)
            return _compile_filter(written, operand, [compile_expression(each, bound) for each in node.args])
        case nodes.Not(node=inner):
            negated = compile_expression(inner, bound)
            return lambda names: not negated(names)
        case nodes.And(left=first, right=second):
            left, right = compile_expression(first, bound), compile_expression(second, bound)
            return lambda names: left(names) and right(names)
        case nodes.Or(left=first, right=second):
            left, right = compile_expression(first, bound), compile_expression(second, bound)
            return lambda names: left(names) or right(names)
        case nodes.Compare(expr=first, ops=[nodes.Operand(op="eq" | "ne" as sign, expr=second)]):
            left, right, compare = (
                compile_expression(first, bound),
                compile_expression(second, bound),
                eq if sign == "eq" else ne,
            )
            return lambda names: compare(left(names), right(names))
    raise UnsupportedTemplateError


def compile_iterable(node: nodes.Node, bound: frozenset[str]) -> Callable[[RenderContext], Iterable[Any]]:
    """A closure from the render context to what a loop iterates over: an expression's value or a range.

    Raises UnsupportedTemplateError.
    """
    match node:
        case nodes.Call(node=nodes.Name(name="range"), kwargs=[], dyn_args=None, dyn_kwargs=None):
            bounded_range: Callable[..., Iterable[int]] = jinja_sandbox.HTML_ENVIRONMENT.globals["range"]  # type: ignore[assignment]
            limits = [compile_expression(each, bound) for each in node.args]
            return lambda names: bounded_range(*(limit(names) for limit in limits))
    return compile_expression(node, bound)


def _compile_filter(apply: Callable[..., Any], inner: Evaluator, arguments: Sequence[Evaluator]) -> Evaluator:
    return lambda names: apply(inner(names), *(other(names) for other in arguments))
