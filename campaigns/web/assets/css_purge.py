"""Removal of rules that no page uses from a library's stylesheet.

Most of a library's rules are unused, and a phone parses all of them before it paints. The classes in use are found in
the sources: a rule is kept when each of its classes is a word of a template, of a script of ours, or of Python code
that writes HTML, or starts and ends like a class name that is assembled there (``bg-{{ tone }}-lt``).
"""

import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

_ROOT = Path(__file__).parents[3]
_SOURCES = (("templates", "*.html"), ("campaigns/web/static", "*.js"), ("campaigns", "*.py"), ("tracking", "*.py"))
_WORD = re.compile(r"[A-Za-z_][\w-]*")
_TEMPLATED_NAME = re.compile(r"([A-Za-z_][\w-]*-)(?:\{\{[^}]*\}\}|\$?\{[^}]*\})([\w-]*)")
_CONCATENATED_NAME = re.compile(r"""([A-Za-z_][\w-]*-)["']\s*[~+]""")
_TOKEN = re.compile(r"""/\*.*?\*/|"(?:\\.|[^"\\])*"|'(?:\\.|[^'\\])*'|[{};]|[^{};"'/]+|/""", re.S)
_CLASS = re.compile(r"\.(-?[A-Za-z_](?:[\w-]|\\.)*)")
_FUNCTIONAL_PSEUDO_CLASS = re.compile(r":(?:not|is|where|has)\((?:[^()]|\([^()]*\))*\)")
_NESTING_AT_RULES = ("@media", "@supports", "@layer", "@container")


def purge(css: str) -> str:
    """The stylesheet with only those rules that our pages can use."""
    return "".join(_kept_rules(_TOKEN.findall(css)))


@cache
def _source_names() -> tuple[frozenset[str], tuple[tuple[str, str], ...]]:
    """All words of the sources, and (prefix, suffix) pairs of the class names that are assembled in them."""
    words, affixes = set[str](), set[tuple[str, str]]()
    for folder, pattern in _SOURCES:
        for path in (_ROOT / folder).rglob(pattern):
            if "vendor" in path.parts or "versions" in path.parts:
                continue
            text = path.read_text(encoding="utf-8")
            if path.suffix == ".py" and 'class="' not in text:
                continue
            words.update(_WORD.findall(text))
            affixes.update(_TEMPLATED_NAME.findall(text))
            affixes.update((beginning, "") for beginning in _CONCATENATED_NAME.findall(text))
    return frozenset(words), tuple(sorted(affixes))


def _kept_rules(tokens: list[str]) -> Iterator[str]:
    """The kept rules. The text before a brace is a rule's selector; at-rules without any kept rule are dropped."""
    index = 0
    while index < len(tokens):
        end = index
        while end < len(tokens) and tokens[end] not in "{;}":
            end += 1
        while index < end and tokens[index].startswith("/*"):  # Licence comments stay.
            yield tokens[index]
            index += 1
        prelude = "".join(tokens[index:end])
        if end == len(tokens) or tokens[end] != "{":  # A statement such as @charset.
            yield prelude + (tokens[end] if end < len(tokens) else "")
            index = end + 1
            continue
        close = _closing_brace(tokens, end)
        block = tokens[end + 1 : close]
        if prelude.lstrip().startswith(_NESTING_AT_RULES):
            kept = "".join(_kept_rules(block))
            if kept:
                yield f"{prelude}{{{kept}}}"
        elif prelude.lstrip().startswith("@"):
            yield f"{prelude}{{{''.join(block)}}}"
        elif selectors := [one for one in _selectors(prelude) if _is_used(one)]:
            yield f"{','.join(selectors)}{{{''.join(block)}}}"
        index = close + 1


def _closing_brace(tokens: list[str], opening: int) -> int:
    depth = 0
    for index in range(opening, len(tokens)):
        depth += {"{": 1, "}": -1}.get(tokens[index], 0)
        if not depth:
            return index
    return len(tokens)


def _selectors(prelude: str) -> list[str]:
    """The selectors of a comma-separated list; commas within parentheses don't separate."""
    return re.split(r",(?![^(]*\))", prelude)


def _is_used(selector: str) -> bool:
    words, affixes = _source_names()
    names = (name.replace("\\", "") for name in _CLASS.findall(_FUNCTIONAL_PSEUDO_CLASS.sub("", selector)))
    return all(
        name in words or any(name.startswith(beginning) and name.endswith(ending) for beginning, ending in affixes)
        for name in names
    )
