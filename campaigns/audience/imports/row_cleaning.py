"""Row cleaning: converts the cells of a row into contact values or a rejection."""

import json
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from campaigns.audience import contacts
from campaigns.audience.addresses import normalise
from campaigns.audience.imports.column_mapping import ATTRIBUTES
from campaigns.audience.imports.csv_reader import CsvRow
from campaigns.errors import ValidationFailed, ValidationProblem
from campaigns.i18n import N_


class ParsedRow(NamedTuple):
    """Contact values of one row; rejected rows have a ``message``, its ``params`` and ``field`` instead.

    ``attributes`` and ``params`` are JSON text.
    """

    row: int
    email: str | None = None
    first_name: str = ""
    last_name: str = ""
    language: str | None = None
    timezone: str | None = None
    attributes: str = "{}"
    message: str = ""
    params: str = "{}"
    field: str = ""


_CLEAN: dict[str, Callable[[str], Any]] = {
    "email": normalise,
    "first_name": contacts.name,
    "last_name": contacts.name,
    "language": contacts.language_code,
    "timezone": contacts.timezone_name,
}
_json = json.JSONEncoder(ensure_ascii=False, separators=(",", ":")).encode


class RowParser:
    """Cleans the rows of one file according to its mapping."""

    def __init__(self, mapping: Sequence[str]) -> None:
        self._width = len(mapping)
        self._columns = [(n, target, _CLEAN[target]) for n, target in enumerate(mapping) if target in _CLEAN]
        self._attributes = [
            (n, target.removeprefix(ATTRIBUTES)) for n, target in enumerate(mapping) if target.startswith(ATTRIBUTES)
        ]

    def clean(self, row: CsvRow) -> ParsedRow:
        """Return the cleaned row. Missing trailing cells count as empty, extra non-empty cells reject the row."""
        if row.message:
            return ParsedRow(row.number, message=row.message)
        cells = row.cells
        if len(cells) > self._width and any(cell.strip() for cell in cells[self._width :]):
            params = {"cells": len(cells), "columns": self._width}
            message = N_("The row has %(cells)s cells for %(columns)s columns.")
            return ParsedRow(row.number, message=message, params=_json(params))
        cells = cells + [""] * (self._width - len(cells))
        values: dict[str, Any] = {}
        for n, target, clean in self._columns:
            try:
                values[target] = clean(cells[n])
            except ValidationFailed as error:
                return _rejected(row.number, error.problems[0], target)
        given = {}
        for n, key in self._attributes:
            try:
                if value := contacts.attribute_value(cells[n]):
                    given[key] = value
            except ValidationFailed as error:
                return _rejected(row.number, error.problems[0], ATTRIBUTES + key)
        return ParsedRow(row.number, attributes=_json(given) if given else "{}", **values)


def _rejected(row: int, problem: ValidationProblem, target: str) -> ParsedRow:
    return ParsedRow(row, message=problem.message, params=_json(dict(problem.params)), field=target)
