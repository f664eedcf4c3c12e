"""Row cleaning: converts the cells of a row into contact values or a rejection."""

import json
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from campaigns.audience import contacts
from campaigns.audience.addresses import normalise
from campaigns.audience.imports.column_mapping import ATTRIBUTE_PREFIX
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


_CLEANERS: dict[str, Callable[[str], Any]] = {
    "email": normalise,
    "first_name": contacts.clean_name,
    "last_name": contacts.clean_name,
    "language": contacts.clean_language,
    "timezone": contacts.clean_timezone,
}
_json = json.JSONEncoder(ensure_ascii=False, separators=(",", ":")).encode


class RowParser:
    """Cleans the rows of one file according to its mapping."""

    def __init__(self, mapping: Sequence[str]) -> None:
        self._width = len(mapping)
        self._columns = [(n, target, _CLEANERS[target]) for n, target in enumerate(mapping) if target in _CLEANERS]
        self._attributes = [
            (n, target.removeprefix(ATTRIBUTE_PREFIX))
            for n, target in enumerate(mapping)
            if target.startswith(ATTRIBUTE_PREFIX)
        ]

    def parse(self, row: CsvRow) -> ParsedRow:
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
        attributes = {}
        for n, key in self._attributes:
            try:
                if value := contacts.clean_attribute(cells[n]):
                    attributes[key] = value
            except ValidationFailed as error:
                return _rejected(row.number, error.problems[0], ATTRIBUTE_PREFIX + key)
        return ParsedRow(row.number, attributes=_json(attributes) if attributes else "{}", **values)


def _rejected(row: int, problem: ValidationProblem, target: str) -> ParsedRow:
    return ParsedRow(row, message=problem.message, params=_json(dict(problem.params)), field=target)
