"""Merge expressions: scanner and validator.

The permitted syntax is a short allowlist, checked on Jinja's syntax tree before anything is compiled: Jinja folds
constants at compile time, so ``{{ 'a' * 10 ** 9 }}`` consumes memory even if it is never rendered.
"""

import difflib
from collections.abc import Collection
from dataclasses import dataclass, field, replace

from jinja2 import TemplateSyntaxError, nodes

from campaigns.content.mjml.diagnostics import Diagnostic, SourcePosition
from campaigns.content.rendering.jinja_sandbox import FILTERS, TEXT_ENVIRONMENT
from campaigns.i18n import N_

MAX_EXPRESSION_LENGTH = 1_000
MAX_LOOP_ITEMS = 50
MAX_UNCLOSED = 20
MAX_LOOP_DEPTH = 2
MAX_CONDITION_DEPTH = 12
TOP_LEVEL_NAMES = frozenset({"unsubscribe_url"})
_CLOSERS = {"{{": "}}", "{%": "%}", "{#": "#}"}
_LOOP_ATTRIBUTES = frozenset({"index", "index0", "first", "last", "length"})
_KEYWORDS = frozenset({"if", "elif", "else", "endif", "for", "endfor"})
_NOT_POSSIBLE = N_("Only {{ … }}, {% if %} and {% for %} are possible in a message.")
_TESTS = frozenset({"defined", "undefined", "none", "in", "eq", "ne", "equalto"})


@dataclass(frozen=True, slots=True)
class MergeExpression:
    """One expression: ``source[start:end]``, including its delimiters."""

    start: int
    end: int
    source: str

    @property
    def is_output(self) -> bool:
        return self.source.startswith("{{")

    @property
    def is_comment(self) -> bool:
        return self.source.startswith("{#")

    @property
    def keyword(self) -> str:
        """The first word of a statement (``if``, ``endif``, …); '' for an output."""
        words = self.source[2:-2].strip("-+ \t\n\r").split(None, 1)
        return words[0] if self.source.startswith("{%") and words else ""

    @property
    def inner(self) -> str:
        return self.source[2:-2].strip().strip("-+").strip()


def scan_expressions(
    source: str, where: str, skip: list[tuple[int, int]] | None = None
) -> tuple[list[MergeExpression], list[Diagnostic]]:
    """Return the expressions of ``source`` in order, outside of ``skip``, and findings for unclosed ones."""
    expressions: list[MergeExpression] = []
    findings: list[Diagnostic] = []
    positions = SourcePosition(source)
    regions = list(skip or ())
    position = 0
    while (start := source.find("{", position)) >= 0:
        while regions and regions[0][1] <= start:
            regions.pop(0)
        if regions and regions[0][0] <= start:
            position = regions[0][1]
            continue
        opening = source[start : start + 2]
        if opening not in _CLOSERS:
            position = start + 1
            continue
        end = _find_end(source, start, _CLOSERS[opening])
        if end is None:
            line, column = positions.line_and_column(start)
            findings.append(
                Diagnostic(
                    N_("The merge expression that begins with %(opening)s is not closed with %(closer)s."),
                    where,
                    line,
                    column,
                    {"opening": opening, "closer": _CLOSERS[opening]},
                )
            )
            position = start + 2
            if len(findings) >= MAX_UNCLOSED:
                break  # each scans MAX_EXPRESSION_LENGTH characters ahead, so many of them would take quadratic time
            continue
        expressions.append(MergeExpression(start, end, source[start:end]))
        position = end
    return expressions, findings


def _find_end(source: str, start: int, closer: str) -> int | None:
    """Return the end offset of an expression; closing delimiters inside quoted strings do not count."""
    quote = ""
    position = start + 2
    while position < min(len(source), start + MAX_EXPRESSION_LENGTH):
        character = source[position]
        if quote:
            if character == "\\":
                position += 1
            elif character == quote:
                quote = ""
        elif character in "\"'" and closer != "#}":
            quote = character
        elif source.startswith(closer, position):
            return position + 2
        position += 1
    return None


def check_expressions(
    source: str, expressions: list[MergeExpression], where: str, known: Collection[str]
) -> list[Diagnostic]:
    """Return errors of the expressions, each with field and line."""
    positions = SourcePosition(source)
    unsupported = [each for each in expressions if each.source.startswith("{%") and each.keyword not in _KEYWORDS]
    if unsupported:  # includes {% raw %}, which leaves no trace in the syntax tree
        return [Diagnostic(_NOT_POSSIBLE, where, *positions.line_and_column(each.start)) for each in unsupported]
    try:
        tree = TEXT_ENVIRONMENT.parse(_expressions_only(source, expressions))
    except TemplateSyntaxError as error:
        message = N_("This merge expression cannot be read: %(reason)s")
        return [Diagnostic(message, where, error.lineno, None, {"reason": error.message or ""})]
    except RecursionError:
        return [Diagnostic(N_("Merge expressions are nested too deeply."), where)]
    validator = _ExpressionValidator(where, frozenset(known))
    validator.check_body(tree.body, frozenset())
    return [_with_position(each, expressions, positions) for each in validator.findings]


def _expressions_only(source: str, expressions: list[MergeExpression]) -> str:
    """The expressions without the text around them, each still in its line."""
    parts, position = [], 0
    for expression in expressions:
        parts += ["\n" * source.count("\n", position, expression.start), expression.source]
        position = expression.end
    return "".join(parts)


def _with_position(finding: Diagnostic, expressions: list[MergeExpression], positions: SourcePosition) -> Diagnostic:
    """The finding with line and column of the name it concerns; Jinja reports lines only."""
    name = str(finding.params.get("name", ""))
    for expression in expressions:
        at = expression.source.find(name) if name else -1
        if (
            at >= 0
            and positions.line_and_column(expression.start)[0]
            <= (finding.line or 0)
            <= positions.line_and_column(expression.end)[0]
        ):
            line, column = positions.line_and_column(expression.start + at)
            return replace(finding, line=line, column=column)
    return finding


@dataclass
class _ExpressionValidator:
    """Walks the syntax tree. ``scope`` contains the names that enclosing loops define."""

    where: str
    known: frozenset[str]
    findings: list[Diagnostic] = field(default_factory=list)
    loop_depth: int = 0
    condition_depth: int = 0

    def report(self, node: nodes.Node, message: str, **params: object) -> None:
        self.findings.append(Diagnostic(message, self.where, node.lineno, None, params))

    def check_body(self, body: list[nodes.Node], scope: frozenset[str]) -> None:
        for node in body:
            if isinstance(node, nodes.Output):
                for part in node.nodes:
                    self.check_value(part, scope)
            elif isinstance(node, nodes.If):
                self.check_condition(node, scope)
            elif isinstance(node, nodes.For):
                self.check_loop(node, scope)
            else:
                self.report(node, _NOT_POSSIBLE)

    def check_condition(self, node: nodes.If, scope: frozenset[str]) -> None:
        self.condition_depth += 1
        if self.condition_depth > MAX_CONDITION_DEPTH:
            self.report(node, N_("Merge expressions are nested too deeply."))
        else:
            self.check_value(node.test, scope)
            self.check_body(node.body, scope)
            for other in node.elif_:
                self.check_value(other.test, scope)
                self.check_body(other.body, scope)
            self.check_body(node.else_, scope)
        self.condition_depth -= 1

    def check_loop(self, node: nodes.For, scope: frozenset[str]) -> None:
        self.loop_depth += 1
        if self.loop_depth > MAX_LOOP_DEPTH:
            self.report(node, N_("At most %(most)s loops can stand in one another."), most=MAX_LOOP_DEPTH)
        elif node.recursive or not isinstance(node.target, nodes.Name):
            self.report(node, N_("Write a loop as {% for item in … %}."))
        elif node.target.name in {"contact", "campaign", "organisation", "links", *TOP_LEVEL_NAMES}:
            self.report(node, N_("The loop's name %(name)s is taken; choose another."), name=node.target.name)
        else:
            inner = scope | {node.target.name, "loop"}
            self.check_iterable(node, node.iter, scope)
            if node.test is not None:
                self.check_value(node.test, inner)
            self.check_body(node.body, inner)
            self.check_body(node.else_, scope)
        self.loop_depth -= 1

    def check_iterable(self, loop: nodes.For, node: nodes.Node, scope: frozenset[str]) -> None:
        if isinstance(node, nodes.List | nodes.Tuple) and len(node.items) <= MAX_LOOP_ITEMS:
            for item in node.items:
                self.check_value(item, scope)
        elif isinstance(node, nodes.Filter) and node.name == "split":
            self.check_value(node, scope)
        elif not _is_short_range(node):
            self.report(
                loop,
                N_('A loop can go over a list, a field|split(","), or range(…), of at most %(most)s items.'),
                most=MAX_LOOP_ITEMS,
            )

    def check_value(self, node: nodes.Node | None, scope: frozenset[str]) -> None:
        if isinstance(node, nodes.Getattr):
            self.check_field(node, scope)
        elif isinstance(node, nodes.Name):
            if node.name not in scope | TOP_LEVEL_NAMES:
                self.report_unknown(node, node.name)
        elif isinstance(node, nodes.Filter):
            if node.name not in FILTERS:
                message = N_("There is no filter %(name)s; possible are: %(all)s.")
                self.report(node, message, name=node.name, all=", ".join(sorted(FILTERS)))
            self.check_values([node.node, *node.args, *(pair.value for pair in node.kwargs)], scope)
        elif isinstance(node, nodes.Test):
            if node.name not in _TESTS:
                self.report(node, N_("There is no test %(name)s."), name=node.name)
            self.check_values([node.node, *node.args], scope)
        elif isinstance(node, _PERMITTED_NODES):
            self.check_values(list(node.iter_child_nodes()), scope)
        elif node is not None:
            self.report(node, N_("This is not possible in a merge expression; use fields, filters, and comparisons."))

    def check_values(self, several: list[nodes.Node | None], scope: frozenset[str]) -> None:
        for node in several:
            self.check_value(node, scope)

    def check_field(self, node: nodes.Getattr, scope: frozenset[str]) -> None:
        root = node.node
        if not isinstance(root, nodes.Name):
            self.report(node, N_("A merge field has two parts, such as contact.first_name."))
        elif root.name == "loop" and "loop" in scope:
            if node.attr not in _LOOP_ATTRIBUTES:
                self.report_unknown(node, f"loop.{node.attr}")
        elif f"{root.name}.{node.attr}" not in self.known:
            self.report_unknown(node, f"{root.name}.{node.attr}")

    def report_unknown(self, node: nodes.Node, name: str) -> None:
        if near := _closest_field(name, self.known):
            self.report(node, N_("Unknown merge field %(name)s. Did you mean %(near)s?"), name=name, near=near)
        else:
            self.report(node, N_("Unknown merge field %(name)s."), name=name[:100])


def _closest_field(name: str, known: frozenset[str]) -> str | None:
    """The known field with the same root that ``name`` probably means."""
    root, _, part = name[:100].partition(".")
    parts = [each.partition(".")[2] for each in known if each.startswith(f"{root}.")]
    near = difflib.get_close_matches(part, parts, 1, 0.5) if part else []
    return f"{root}.{near[0]}" if near else None


_PERMITTED_NODES = (
    nodes.TemplateData,
    nodes.Const,
    nodes.Compare,
    nodes.Operand,
    nodes.And,
    nodes.Or,
    nodes.Not,
    nodes.CondExpr,
    nodes.Concat,
    nodes.List,
    nodes.Tuple,
)


def _is_short_range(node: nodes.Node) -> bool:
    return (
        isinstance(node, nodes.Call)
        and isinstance(node.node, nodes.Name)
        and node.node.name == "range"
        and 1 <= len(node.args) <= 2
        and not node.kwargs
        and node.dyn_args is None
        and node.dyn_kwargs is None
        and all(
            isinstance(n, nodes.Const) and isinstance(n.value, int) and 0 <= n.value <= MAX_LOOP_ITEMS
            for n in node.args
        )
    )
