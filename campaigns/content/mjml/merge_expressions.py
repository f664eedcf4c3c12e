"""Merge expressions: scanner and validator.

The permitted syntax is a short allowlist, checked on Jinja's syntax tree before anything is compiled: Jinja folds
constants at compile time, so ``{{ 'a' * 10 ** 9 }}`` consumes memory even if it is never rendered.
"""

import difflib
from collections.abc import Collection
from dataclasses import dataclass, field, replace

from jinja2 import TemplateSyntaxError, nodes

from campaigns.content.mjml.diagnostics import Diagnostic, SourcePosition
from campaigns.content.rendering.jinja_sandbox import FILTERS, TEXT
from campaigns.i18n import N_

LONGEST_EXPRESSION = 1_000
LONGEST_LOOP = 50
MOST_UNCLOSED = 20
DEEPEST_LOOPS = 2
DEEPEST_CONDITIONS = 12
PLAIN_NAMES = frozenset({"unsubscribe_url"})
_CLOSERS = {"{{": "}}", "{%": "%}", "{#": "#}"}
_LOOP_WORDS = frozenset({"index", "index0", "first", "last", "length"})
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


def scan(
    source: str, where: str, skip: list[tuple[int, int]] | None = None
) -> tuple[list[MergeExpression], list[Diagnostic]]:
    """Return the expressions of ``source`` in order, outside of ``skip``, and findings for unclosed ones."""
    found: list[MergeExpression] = []
    findings: list[Diagnostic] = []
    place = SourcePosition(source)
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
        end = _end(source, start, _CLOSERS[opening])
        if end is None:
            line, column = place.of(start)
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
            if len(findings) >= MOST_UNCLOSED:
                break  # each scans MAX_EXPRESSION_LENGTH characters ahead, so many of them would take quadratic time
            continue
        found.append(MergeExpression(start, end, source[start:end]))
        position = end
    return found, findings


def _end(source: str, start: int, closer: str) -> int | None:
    """Return the end offset of an expression; closing delimiters inside quoted strings do not count."""
    quote = ""
    position = start + 2
    while position < min(len(source), start + LONGEST_EXPRESSION):
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


def check(source: str, found: list[MergeExpression], where: str, known: Collection[str]) -> list[Diagnostic]:
    """Return errors of the expressions, each with field and line."""
    place = SourcePosition(source)
    strange = [each for each in found if each.source.startswith("{%") and each.keyword not in _KEYWORDS]
    if strange:  # includes {% raw %}, which leaves no trace in the syntax tree
        return [Diagnostic(_NOT_POSSIBLE, where, *place.of(each.start)) for each in strange]
    try:
        tree = TEXT.parse(_skeleton(source, found))
    except TemplateSyntaxError as error:
        message = N_("This merge expression cannot be read: %(reason)s")
        return [Diagnostic(message, where, error.lineno, None, {"reason": error.message or ""})]
    except RecursionError:
        return [Diagnostic(N_("Merge expressions are nested too deeply."), where)]
    reader = _ExpressionValidator(where, frozenset(known))
    reader.body(tree.body, frozenset())
    return [_located(each, found, place) for each in reader.findings]


def _skeleton(source: str, found: list[MergeExpression]) -> str:
    """The expressions without the text around them, each still in its line."""
    parts, position = [], 0
    for expression in found:
        parts += ["\n" * source.count("\n", position, expression.start), expression.source]
        position = expression.end
    return "".join(parts)


def _located(finding: Diagnostic, found: list[MergeExpression], place: SourcePosition) -> Diagnostic:
    """The finding with line and column of the name it concerns; Jinja reports lines only."""
    name = str(finding.params.get("name", ""))
    for expression in found:
        at = expression.source.find(name) if name else -1
        if at >= 0 and place.of(expression.start)[0] <= (finding.line or 0) <= place.of(expression.end)[0]:
            line, column = place.of(expression.start + at)
            return replace(finding, line=line, column=column)
    return finding


@dataclass
class _ExpressionValidator:
    """Walks the syntax tree. ``scope`` contains the names that enclosing loops define."""

    where: str
    known: frozenset[str]
    findings: list[Diagnostic] = field(default_factory=list)
    loops: int = 0
    conditions: int = 0

    def refuse(self, node: nodes.Node, message: str, **params: object) -> None:
        self.findings.append(Diagnostic(message, self.where, node.lineno, None, params))

    def body(self, body: list[nodes.Node], scope: frozenset[str]) -> None:
        for node in body:
            if isinstance(node, nodes.Output):
                for part in node.nodes:
                    self.value(part, scope)
            elif isinstance(node, nodes.If):
                self.condition(node, scope)
            elif isinstance(node, nodes.For):
                self.loop(node, scope)
            else:
                self.refuse(node, _NOT_POSSIBLE)

    def condition(self, node: nodes.If, scope: frozenset[str]) -> None:
        self.conditions += 1
        if self.conditions > DEEPEST_CONDITIONS:
            self.refuse(node, N_("Merge expressions are nested too deeply."))
        else:
            self.value(node.test, scope)
            self.body(node.body, scope)
            for other in node.elif_:
                self.value(other.test, scope)
                self.body(other.body, scope)
            self.body(node.else_, scope)
        self.conditions -= 1

    def loop(self, node: nodes.For, scope: frozenset[str]) -> None:
        self.loops += 1
        if self.loops > DEEPEST_LOOPS:
            self.refuse(node, N_("At most %(most)s loops can stand in one another."), most=DEEPEST_LOOPS)
        elif node.recursive or not isinstance(node.target, nodes.Name):
            self.refuse(node, N_("Write a loop as {% for item in … %}."))
        elif node.target.name in {"contact", "campaign", "organisation", "links", *PLAIN_NAMES}:
            self.refuse(node, N_("The loop's name %(name)s is taken; choose another."), name=node.target.name)
        else:
            inner = scope | {node.target.name, "loop"}
            self.iterable(node, node.iter, scope)
            if node.test is not None:
                self.value(node.test, inner)
            self.body(node.body, inner)
            self.body(node.else_, scope)
        self.loops -= 1

    def iterable(self, loop: nodes.For, node: nodes.Node, scope: frozenset[str]) -> None:
        if isinstance(node, nodes.List | nodes.Tuple) and len(node.items) <= LONGEST_LOOP:
            for item in node.items:
                self.value(item, scope)
        elif isinstance(node, nodes.Filter) and node.name == "split":
            self.value(node, scope)
        elif not _short_range(node):
            self.refuse(
                loop,
                N_('A loop can go over a list, a field|split(","), or range(…), of at most %(most)s items.'),
                most=LONGEST_LOOP,
            )

    def value(self, node: nodes.Node | None, scope: frozenset[str]) -> None:
        if isinstance(node, nodes.Getattr):
            self.field(node, scope)
        elif isinstance(node, nodes.Name):
            if node.name not in scope | PLAIN_NAMES:
                self.unknown(node, node.name)
        elif isinstance(node, nodes.Filter):
            if node.name not in FILTERS:
                message = N_("There is no filter %(name)s; possible are: %(all)s.")
                self.refuse(node, message, name=node.name, all=", ".join(sorted(FILTERS)))
            self.all([node.node, *node.args, *(pair.value for pair in node.kwargs)], scope)
        elif isinstance(node, nodes.Test):
            if node.name not in _TESTS:
                self.refuse(node, N_("There is no test %(name)s."), name=node.name)
            self.all([node.node, *node.args], scope)
        elif isinstance(node, _HARMLESS):
            self.all(list(node.iter_child_nodes()), scope)
        elif node is not None:
            self.refuse(node, N_("This is not possible in a merge expression; use fields, filters, and comparisons."))

    def all(self, several: list[nodes.Node | None], scope: frozenset[str]) -> None:
        for node in several:
            self.value(node, scope)

    def field(self, node: nodes.Getattr, scope: frozenset[str]) -> None:
        root = node.node
        if not isinstance(root, nodes.Name):
            self.refuse(node, N_("A merge field has two parts, such as contact.first_name."))
        elif root.name == "loop" and "loop" in scope:
            if node.attr not in _LOOP_WORDS:
                self.unknown(node, f"loop.{node.attr}")
        elif f"{root.name}.{node.attr}" not in self.known:
            self.unknown(node, f"{root.name}.{node.attr}")

    def unknown(self, node: nodes.Node, name: str) -> None:
        if near := _nearest(name, self.known):
            self.refuse(node, N_("Unknown merge field %(name)s. Did you mean %(near)s?"), name=name, near=near)
        else:
            self.refuse(node, N_("Unknown merge field %(name)s."), name=name[:100])


def _nearest(name: str, known: frozenset[str]) -> str | None:
    """The known field with the same root that ``name`` probably means."""
    root, _, part = name[:100].partition(".")
    parts = [each.partition(".")[2] for each in known if each.startswith(f"{root}.")]
    near = difflib.get_close_matches(part, parts, 1, 0.5) if part else []
    return f"{root}.{near[0]}" if near else None


_HARMLESS = (
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


def _short_range(node: nodes.Node) -> bool:
    return (
        isinstance(node, nodes.Call)
        and isinstance(node.node, nodes.Name)
        and node.node.name == "range"
        and 1 <= len(node.args) <= 2
        and not node.kwargs
        and node.dyn_args is None
        and node.dyn_kwargs is None
        and all(
            isinstance(n, nodes.Const) and isinstance(n.value, int) and 0 <= n.value <= LONGEST_LOOP for n in node.args
        )
    )
