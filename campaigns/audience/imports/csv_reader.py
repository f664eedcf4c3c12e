"""Tolerant CSV reader: detects encoding, delimiter and header; a broken row does not stop the file.

A file that is not a table is refused as a whole. A bad row is returned with its problem, and reading continues
with the next row.
"""

import codecs
import csv
from collections import Counter, deque
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import NamedTuple, TextIO

from campaigns.audience.addresses import is_address
from campaigns.errors import ValidationFailed, ValidationProblem
from campaigns.i18n import N_

ENCODINGS = {
    "utf-8-sig": "UTF-8",
    "utf-16": "UTF-16",
    "utf-16-le": "UTF-16 LE",
    "utf-16-be": "UTF-16 BE",
    "cp1252": "Windows-1252 (Western)",
    "cp1251": "Windows-1251 (Cyrillic)",
}
DELIMITERS = {",": N_("Comma"), ";": N_("Semicolon"), "\t": N_("Tab"), "|": N_("Vertical bar")}
MAX_COLUMNS = 500

_MAX_LINE_LENGTH = 1_000_000
# Quoted cells may contain line breaks (addresses, notes). The limits keep an unclosed quote from swallowing the file.
_MAX_RECORD_LINES, _MAX_RECORD_LENGTH = 50, 50_000
_SAMPLE_ROWS = 50
_EXCERPT_LENGTH = 1000

_REFUSED_FILE_TYPES = (
    (b"\x89PNG", N_("This is a picture, not a CSV file.")),
    (b"\xff\xd8\xff", N_("This is a picture, not a CSV file.")),
    (b"GIF8", N_("This is a picture, not a CSV file.")),
    (b"%PDF", N_("This is a PDF, not a CSV file.")),
    (b"PK\x03\x04", N_("This is an Excel workbook or a ZIP file. Save the sheet as CSV and upload that.")),
    (b"\xd0\xcf\x11\xe0", N_("This is an Excel workbook. Save the sheet as CSV and upload that.")),
    (b"\x1f\x8b", N_("This file is compressed. Unpack it and upload the CSV file inside.")),
)


class CsvRow(NamedTuple):
    """One record of the file.

    ``number`` counts rows as spreadsheets do. With a ``message`` (the problem), the only cell is the raw row.
    """

    number: int
    cells: list[str]
    message: str = ""


@dataclass(frozen=True, slots=True)
class CsvDialect:
    """The format of a file as detected, with its first rows."""

    encoding: str
    delimiter: str
    has_header: bool
    columns: list[str]
    """Header cells; empty strings without a header."""
    samples: list[list[str]]


def sniff_dialect(path: Path, encoding: str = "", delimiter: str = "", has_header: bool | None = None) -> CsvDialect:
    """Detect how to read the file; given arguments are not detected. Raises ValidationFailed for a non-table."""
    encoding = encoding or detect_encoding(path)
    _refuse_binary(path, encoding)
    delimiter = delimiter or _detect_delimiter(path, encoding)
    sample = [row.cells for row in islice(read_rows(path, encoding, delimiter), _SAMPLE_ROWS) if row.cells]
    if not sample:
        raise ValidationFailed(ValidationProblem(N_("The file has no rows."), field="file"))
    if has_header is None:
        has_header = not any(is_address(cell) for cell in sample[0])
    header = [cell.strip() for cell in sample[0]] if has_header else []
    # The most common width, not the largest: one stray comma in row 7 must not add a column.
    usual_width = Counter(map(len, sample[1:] or sample)).most_common(1)[0][0]
    width = max(len(header), usual_width)
    if width > MAX_COLUMNS:
        message = N_("The file has %(width)s columns; at most %(most)s can be read.")
        raise ValidationFailed(ValidationProblem(message, field="file", params={"width": width, "most": MAX_COLUMNS}))
    return CsvDialect(
        encoding=encoding,
        delimiter=delimiter,
        has_header=has_header,
        columns=header + [""] * (width - len(header)),
        samples=[(cells + [""] * width)[:width] for cells in sample[1 if has_header else 0 :]],
    )


def read_rows(path: Path, encoding: str, delimiter: str) -> Iterator[CsvRow]:
    """Yield every non-blank record, the header included. Never raises because of the file's content."""
    with path.open(encoding=encoding, errors="replace", newline=None) as file:
        number = 0
        for text, message in _read_records(file, delimiter):
            if number == 0 and text.lower().startswith("sep=") and len(text) <= 5:
                continue  # Excel's delimiter line, which Excel itself does not display
            number += 1
            if message:
                yield CsvRow(number, [text], message)
            elif not text.strip():
                continue
            elif "\x00" in text:
                yield CsvRow(number, [text.replace("\x00", "\ufffd")], N_("The row contains NUL bytes."))
            elif "\ufffd" in text:
                yield CsvRow(
                    number, [text], N_("The row contains characters that the encoding of this file does not have.")
                )
            else:
                cells = _split_cells(text, delimiter)
                if any(cell and not cell.isspace() for cell in cells):
                    yield CsvRow(number, cells)


def _split_cells(text: str, delimiter: str) -> list[str]:
    if '"' not in text:
        return text.split(delimiter)
    try:
        return next(csv.reader((text,), delimiter=delimiter))
    except (csv.Error, StopIteration):  # stray quotation mark before a line break: use the text as it is
        return text.replace("\n", " ").split(delimiter)


def _read_records(file: TextIO, delimiter: str) -> Iterator[tuple[str, str]]:
    """Yield (record without line end, problem or '')."""
    pushed_back: deque[str] = deque()
    while line := pushed_back.popleft() if pushed_back else file.readline(_MAX_LINE_LENGTH):
        if len(line) == _MAX_LINE_LENGTH and line[-1] != "\n":
            while (rest := file.readline(_MAX_LINE_LENGTH)) and rest[-1] != "\n":
                pass
            yield line[:_EXCERPT_LENGTH], N_("The row is far too long.")
            continue
        line = line.rstrip("\n")
        if '"' not in line or not _has_open_quote(line, delimiter):
            yield line, ""
            continue
        record, lines_read = _read_until_closed(line, file, pushed_back, delimiter)
        if record is None:
            pushed_back.extendleft(reversed(lines_read))
            yield line, N_("A quotation mark in this row is never closed.")
        else:
            yield record, ""


def _read_until_closed(
    line: str, file: TextIO, pushed_back: deque[str], delimiter: str
) -> tuple[str | None, list[str]]:
    """Return the record that begins with ``line`` and the lines read; None as record when its quote is never closed."""
    lines_read: list[str] = []
    record = line
    while len(lines_read) < _MAX_RECORD_LINES and len(record) < _MAX_RECORD_LENGTH:
        next_line = pushed_back.popleft() if pushed_back else file.readline(_MAX_LINE_LENGTH)
        if not next_line:
            break
        lines_read.append(next_line)
        record += "\n" + next_line.rstrip("\n")
        if '"' in next_line and not _has_open_quote(record, delimiter):
            return record, lines_read
    return None, lines_read


def _has_open_quote(text: str, delimiter: str) -> bool:
    """Return whether a quoted cell continues beyond the end of the text."""
    try:
        next(csv.reader((text,), delimiter=delimiter, strict=True))
    except csv.Error as error:
        return "end of data" in str(error)
    return False


def detect_encoding(path: Path) -> str:
    """Detect the encoding: by byte order mark, by NUL positions, by decoding as UTF-8, else by guessing a code page.

    Raises ValidationFailed for empty, compressed and binary files.
    """
    with path.open("rb") as file:
        head = file.read(65536)
    if not head.strip(b"\xef\xbb\xbf\xff\xfe \t\r\n\x00"):
        raise ValidationFailed(ValidationProblem(N_("The file is empty."), field="file"))
    for magic, message in _REFUSED_FILE_TYPES:
        if head.startswith(magic):
            raise ValidationFailed(ValidationProblem(message, field="file"))
    if head.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return "utf-16"
    even, odd = head[0::2].count(0), head[1::2].count(0)
    if max(even, odd) > len(head) / 20 and min(even, odd) * 10 < max(even, odd):
        return "utf-16-le" if odd > even else "utf-16-be"
    return "utf-8-sig" if _is_utf8(path) else _guess_code_page(path)


def _is_utf8(path: Path) -> bool:
    decoder = codecs.getincrementaldecoder("utf-8")()
    with path.open("rb") as file:
        try:
            while chunk := file.read(1 << 20):
                decoder.decode(chunk)
            decoder.decode(b"", final=True)
        except UnicodeDecodeError:
            return False
    return True


def _guess_code_page(path: Path) -> str:
    """Windows-1251 or 1252: Cyrillic text has runs of high bytes, Western text single ones between ASCII."""
    high = paired = 0
    with path.open("rb") as file:
        while chunk := file.read(1 << 20):
            letters = [byte >= 0xC0 for byte in chunk if byte >= 0xC0 or chr(byte).isalnum() or byte in b" ,;\t\n"]
            high += sum(letters)
            paired += sum(map(bool.__and__, letters, letters[1:]))
            if high > 1000:
                break
    return "cp1251" if paired * 2 > high else "cp1252"


def _refuse_binary(path: Path, encoding: str) -> None:
    with path.open(encoding=encoding, errors="replace", newline=None) as file:
        text = file.read(20_000)
    noise = sum(1 for sign in text if (sign < " " and sign not in "\t\n\x00") or sign in "\x7f\ufffd")
    if noise * 50 > len(text):
        raise ValidationFailed(ValidationProblem(N_("This is not a text file, so it is not CSV either."), field="file"))


def _detect_delimiter(path: Path, encoding: str) -> str:
    """The delimiter that gives most of the first rows the same number of cells, more than one."""
    with path.open(encoding=encoding, errors="replace", newline=None) as file:
        first_line = file.readline(10).strip().lower()
    if first_line.startswith("sep=") and first_line[4:] in DELIMITERS:
        return first_line[4:]
    if first_line.startswith("sep=") and len(first_line) == 4:
        return "\t"  # strip() removed the tab
    best, best_score = ",", 0.0
    for delimiter in DELIMITERS:
        widths = Counter(
            len(row.cells) for row in islice(read_rows(path, encoding, delimiter), _SAMPLE_ROWS) if row.cells
        )
        widths.pop(1, None)
        if widths:
            width, row_count = widths.most_common(1)[0]
            score = row_count * (1 + min(width, 50) / 100)  # on a tie, prefer more columns
            if score > best_score:
                best, best_score = delimiter, score
    return best
