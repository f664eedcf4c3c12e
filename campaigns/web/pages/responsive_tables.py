"""Tables that are displayed as cards on a phone: each cell carries the label of its column."""

import re
from collections.abc import Mapping, Sequence

from flask import Flask
from markupsafe import Markup, escape

_OPENING = re.compile(r"<(tr|td|th)(?=[\s>])([^>]*)>")
_SPAN = re.compile(r'colspan="(\d+)"')
# With a card layout some screen readers no longer treat the table as one, unless its parts have ARIA roles.
_ROLES = {"td": "cell", "th": "rowheader"}


def label_cells(rows: str, columns: Sequence[str | Mapping[str, object]]) -> Markup:
    """``rows`` of a table body, each cell with its column's label in ``data-label``; cells must not contain tables.

    Cells of a column with a hidden label get an empty ``data-label``.
    """
    names = [_column_label(column) for column in columns]
    column_index = 0

    def with_attributes(match: re.Match[str]) -> str:
        nonlocal column_index
        tag, attributes = match.groups()
        if tag == "tr":
            column_index = 0
            return f'<tr role="row"{attributes}>'
        name = names[column_index] if column_index < len(names) else ""
        span = _SPAN.search(attributes)
        column_index += int(span[1]) if span else 1
        return f'<{tag} role="{_ROLES[tag]}" data-label="{escape(name)}"{attributes}>'

    return Markup(_OPENING.sub(with_attributes, rows))  # noqa: S704  # The rows are escaped already, labels are escaped above.


def _column_label(column: str | Mapping[str, object]) -> str:
    if isinstance(column, str):
        return column
    return "" if column.get("hidden") else str(column["text"])


def init(app: Flask) -> None:
    app.jinja_env.filters["labelled"] = label_cells
