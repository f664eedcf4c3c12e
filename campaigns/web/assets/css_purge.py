"""Removal of rules that no page uses from a library's stylesheet.

Most of a library's rules are unused, and a phone parses all of them before it paints. The classes in use are found in
the sources: a rule is kept when each of its classes is a word of a template, of a script of ours, or of Python code
that writes HTML, or starts and ends like a class name that is assembled there (``bg-{{ tone }}-lt``).
"""

import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

_HOUSE = Path(__file__).parents[3]
_SOURCES = (("templates", "*.html"), ("campaigns/web/static", "*.js"), ("campaigns", "*.py"), ("tracking", "*.py"))
_WORD = re.compile(r"[A-Za-z_][\w-]*")
_PUT_TOGETHER = re.compile(r"([A-Za-z_][\w-]*-)(?:\{\{[^}]*\}\}|\$?\{[^}]*\})([\w-]*)")
_ADDED = re.compile(r"""([A-Za-z_][\w-]*-)["']\s*[~+]""")
_PIECES = re.compile(r"""/\*.*?\*/|"(?:\\.|[^"\\])*"|'(?:\\.|[^'\\])*'|[{};]|[^{};"'/]+|/""", re.S)
_CLASS = re.compile(r"\.(-?[A-Za-z_](?:[\w-]|\\.)*)")
_ASIDE = re.compile(r":(?:not|is|where|has)\((?:[^()]|\([^()]*\))*\)")
_GROUPS = ("@media", "@supports", "@layer", "@container")


def pruned(css: str) -> str:
    """The stylesheet with only those rules that our pages can use."""
    return "".join(_kept(_PIECES.findall(css)))


@cache
def _known() -> tuple[frozenset[str], tuple[tuple[str, str], ...]]:
    """All words of the sources, and (prefix, suffix) pairs of the class names that are assembled in them."""
    words, ends = set[str](), set[tuple[str, str]]()
    for folder, pattern in _SOURCES:
        for path in (_HOUSE / folder).rglob(pattern):
            if "vendor" in path.parts or "versions" in path.parts:
                continue
            text = path.read_text(encoding="utf-8")
            if path.suffix == ".py" and 'class="' not in text:
                continue
            words.update(_WORD.findall(text))
            ends.update(_PUT_TOGETHER.findall(text))
            ends.update((beginning, "") for beginning in _ADDED.findall(text))
    return frozenset(words), tuple(sorted(ends))


def _kept(pieces: list[str]) -> Iterator[str]:
    """The kept rules. The text before a brace is a rule's selector; at-rules without any kept rule are dropped."""
    place = 0
    while place < len(pieces):
        end = place
        while end < len(pieces) and pieces[end] not in "{;}":
            end += 1
        while place < end and pieces[place].startswith("/*"):  # Licence comments stay.
            yield pieces[place]
            place += 1
        head = "".join(pieces[place:end])
        if end == len(pieces) or pieces[end] != "{":  # A statement such as @charset.
            yield head + (pieces[end] if end < len(pieces) else "")
            place = end + 1
            continue
        close = _closing(pieces, end)
        inside = pieces[end + 1 : close]
        if head.lstrip().startswith(_GROUPS):
            left = "".join(_kept(inside))
            if left:
                yield f"{head}{{{left}}}"
        elif head.lstrip().startswith("@"):
            yield f"{head}{{{''.join(inside)}}}"
        elif selectors := [one for one in _selectors(head) if _asked_for(one)]:
            yield f"{','.join(selectors)}{{{''.join(inside)}}}"
        place = close + 1


def _closing(pieces: list[str], opening: int) -> int:
    depth = 0
    for place in range(opening, len(pieces)):
        depth += {"{": 1, "}": -1}.get(pieces[place], 0)
        if not depth:
            return place
    return len(pieces)


def _selectors(head: str) -> list[str]:
    """The selectors of a comma-separated list; commas within parentheses don't separate."""
    return re.split(r",(?![^(]*\))", head)


def _asked_for(selector: str) -> bool:
    words, ends = _known()
    names = (name.replace("\\", "") for name in _CLASS.findall(_ASIDE.sub("", selector)))
    return all(
        name in words or any(name.startswith(beginning) and name.endswith(ending) for beginning, ending in ends)
        for name in names
    )
