"""Diagnostics: validation problems of a message with a severity."""

from dataclasses import dataclass
from enum import StrEnum

from campaigns.errors import ValidationProblem
from campaigns.i18n import N_


class Severity(StrEnum):
    ERROR = "error"  # prevents sending
    WARNING = "warning"  # does not prevent sending; somebody should check it

    @property
    def label(self) -> str:
        return {self.ERROR: N_("Error"), self.WARNING: N_("Warning")}[self]


@dataclass(frozen=True, slots=True)
class Diagnostic(ValidationProblem):
    """A problem with a severity. ``field`` is ``mjml``, ``subject`` or another field of the message."""

    level: Severity = Severity.ERROR


def errors(findings: list[Diagnostic]) -> list[Diagnostic]:
    return [finding for finding in findings if finding.level is Severity.ERROR]


class SourcePosition:
    """Converts offsets in a text into line and column, both counted from 1."""

    def __init__(self, text: str) -> None:
        self._line_starts = [0]
        for offset, character in enumerate(text):
            if character == "\n":
                self._line_starts.append(offset + 1)

    def line_and_column(self, offset: int) -> tuple[int, int]:
        """Return (line, column) of an offset."""
        low, high = 0, len(self._line_starts) - 1
        while low < high:
            middle = (low + high + 1) // 2
            low, high = (middle, high) if self._line_starts[middle] <= offset else (low, middle - 1)
        return low + 1, offset - self._line_starts[low] + 1
