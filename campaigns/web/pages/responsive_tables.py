"""Tables that become cards on a phone: each cell carries the name of its column."""

import re
from collections.abc import Mapping, Sequence

from flask import Flask
from markupsafe import Markup, escape

_OPENING = re.compile(r"<(tr|td|th)(?=[\s>])([^>]*)>")
_SPAN = re.compile(r'colspan="(\d+)"')
# Laid out as cards, a table is none any more for some screen readers, unless its parts say so.
_ROLES = {"td": "cell", "th": "rowheader"}


def labelled(rows: str, columns: Sequence[str | Mapping[str, object]]) -> Markup:
    """``rows`` of a table's body, each cell with its column's text in ``data-label``; no tables within cells.

    A column whose text is hidden has cells that say themselves what they are.
    """
    names = [_name(column) for column in columns]
    place = 0

    def opened(found: re.Match[str]) -> str:
        nonlocal place
        tag, attributes = found.groups()
        if tag == "tr":
            place = 0
            return f'<tr role="row"{attributes}>'
        name = names[place] if place < len(names) else ""
        span = _SPAN.search(attributes)
        place += int(span[1]) if span else 1
        return f'<{tag} role="{_ROLES[tag]}" data-label="{escape(name)}"{attributes}>'

    return Markup(_OPENING.sub(opened, rows))  # noqa: S704  # What came in was escaped, and labels are escaped here.


def _name(column: str | Mapping[str, object]) -> str:
    if isinstance(column, str):
        return column
    return "" if column.get("hidden") else str(column["text"])


def init(app: Flask) -> None:
    app.jinja_env.filters["labelled"] = labelled
