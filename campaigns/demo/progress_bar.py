"""Progress bar for terminals; separate lines when the output is not a terminal."""

import sys
import time
from typing import TextIO

_WIDTH = 24


class ProgressBar:
    """Progress of one step: ``with ProgressBar("Mails", 2000) as bar: bar.update(17)``."""

    def __init__(self, label: str, total: int = 0, stream: TextIO | None = None) -> None:
        self.label, self.total = label, total
        self._stream = stream or sys.stdout
        self._is_terminal = self._stream.isatty()
        self._started_at = time.monotonic()
        self._printed_step = 0
        self._done = 0
        self._note = ""

    def __enter__(self) -> "ProgressBar":
        self.update(0)
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is None:
            self._write(self._format_line(f"{time.monotonic() - self._started_at:.1f} s"), end="\n")
        elif self._is_terminal:
            self._write("", end="\n")

    def update(self, done: int, note: str = "") -> None:
        """Set how much of the total is done, with an optional note."""
        self._done, self._note = done, note
        step = 5 * done // self.total if self.total else 0
        if self._is_terminal:
            self._write(self._format_line(note))
        elif step > self._printed_step and self.total and done < self.total:
            self._write(self._format_line(note), end="\n")
        self._printed_step = max(step, self._printed_step)

    def _format_line(self, note: str) -> str:
        text = "  ".join(word for word in (self._note if note != self._note else "", note) if word)
        if not self.total:
            return f"  {self.label:<24} {text}"
        filled = _WIDTH * min(self._done, self.total) // self.total
        bar = "#" * filled + "-" * (_WIDTH - filled)
        return f"  {self.label:<24} [{bar}] {self._done:>6,} of {self.total:,}  {text}"

    def _write(self, line: str, end: str = "") -> None:
        if self._is_terminal:
            self._stream.write(f"\r\x1b[K{line}{end}")
        else:
            self._stream.write(f"{line.rstrip()}{end}")
        self._stream.flush()
