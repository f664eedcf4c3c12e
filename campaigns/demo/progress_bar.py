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
        self._moves = self._stream.isatty()
        self._began = time.monotonic()
        self._told = 0
        self._done = 0
        self._note = ""

    def __enter__(self) -> "ProgressBar":
        self.show(0)
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is None:
            self._write(self._line(f"{time.monotonic() - self._began:.1f} s"), end="\n")
        elif self._moves:
            self._write("", end="\n")

    def show(self, done: int, note: str = "") -> None:
        """Set how much of the total is done, with an optional note."""
        self._done, self._note = done, note
        step = 5 * done // self.total if self.total else 0
        if self._moves:
            self._write(self._line(note))
        elif step > self._told and self.total and done < self.total:
            self._write(self._line(note), end="\n")
        self._told = max(step, self._told)

    def _line(self, note: str) -> str:
        words = "  ".join(word for word in (self._note if note != self._note else "", note) if word)
        if not self.total:
            return f"  {self.label:<24} {words}"
        filled = _WIDTH * min(self._done, self.total) // self.total
        bar = "#" * filled + "-" * (_WIDTH - filled)
        return f"  {self.label:<24} [{bar}] {self._done:>6,} of {self.total:,}  {words}"

    def _write(self, line: str, end: str = "") -> None:
        if self._moves:
            self._stream.write(f"\r\x1b[K{line}{end}")
        else:
            self._stream.write(f"{line.rstrip()}{end}")
        self._stream.flush()
