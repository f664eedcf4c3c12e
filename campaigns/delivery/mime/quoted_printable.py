"""Quoted-printable encoding (RFC 2045, section 6.7) of whole bodies and of segments that can be joined.

Lines have at most 76 columns, none begins with a dot or ``From ``, none ends with a blank. So dot stuffing and
mbox quoting by relays change nothing.

A *segment* begins and ends at the left margin, with a soft line break where its text does not end a line. So segments
that are encoded once can be concatenated for each recipient.
"""

import binascii
import re
from functools import lru_cache

SOFT_BREAK = "=\r\n"
MAX_LINE = 76
_RISKY = re.compile(rb"(?m)^(?:\.|From ).*$|^.{77,}$")
_SPLIT_COLUMN = 70
_match_plain = re.compile(r"(?!\.|From |.*  )[!-<>-~ ]{1,75}\Z").match
_THREE_LINE_ENDS, _FOUR_LINE_ENDS = "\r\n" * 3, "\r\n" * 4
_SOFT_BREAK_AND_TWO = "=" + _THREE_LINE_ENDS
_BLANK_LINES = re.compile(r"(?<!=)(?:\r\n){3,}")


def encode_body(text: str) -> bytes:
    """``text`` encoded. Line ends become CRLF, and the last line gets one."""
    plain = text.replace("\r\n", "\n").replace("\r", "\n").rstrip("\n") + "\n"
    return _encode_lines(plain).encode()


def encode_segment(text: str) -> str:
    """``text`` encoded as a segment. Line ends become CRLF, and none is added."""
    plain = text.replace("\r\n", "\n").replace("\r", "\n")
    if not plain:
        return ""
    if plain.endswith("\n"):
        return _encode_lines(plain)
    whole, end, last = _encode_lines(plain + "\n")[:-2].rpartition("\r\n")
    if len(last) == MAX_LINE:  # No column is left for the "=" of the soft line break.
        at = next(at for at in range(_SPLIT_COLUMN, 0, -1) if "=" not in last[at - 2 : at])
        last = last[:at] + SOFT_BREAK + _escape_line_start(last[at:])
    return f"{whole}{end}{last}{SOFT_BREAK}"


_cached_segment = lru_cache(4_096)(encode_segment)


def encode_value(value: str) -> str:
    """The segment of one merge value. Plain ASCII values are not encoded; others are cached."""
    return value + SOFT_BREAK if _match_plain(value) else _cached_segment(value)


def collapse_blank_lines(encoded: str) -> str:
    """An encoded text without leading empty lines, and with runs of empty lines reduced to one."""
    if encoded.startswith("\r\n"):
        encoded = encoded.lstrip("\r\n")
    # Counting substrings avoids the regular expression in the usual case. A soft line break consumes one line end of
    # the run that follows it.
    if _FOUR_LINE_ENDS in encoded or encoded.count(_THREE_LINE_ENDS) != encoded.count(_SOFT_BREAK_AND_TWO):
        return _BLANK_LINES.sub("\r\n\r\n", encoded)
    return encoded


def _encode_lines(plain: str) -> str:
    encoded = binascii.b2a_qp(plain.encode("utf-8", "replace"), istext=True)
    encoded = _BLANK_RUNS.sub(_hex_encode, encoded)
    return _RISKY.sub(lambda line: _split_risky_line(line.group()), encoded).replace(b"\n", b"\r\n").decode()


# Without tabs and runs of blanks, the body equals its DKIM relaxed canonical form (RFC 6376, section 3.4.4).
_BLANK_RUNS = re.compile(rb"(?<= ) +|\t")


def _hex_encode(blanks: re.Match[bytes]) -> bytes:
    return b"".join(b"=%02X" % sign for sign in blanks.group())


def _escape_line_start(line: str) -> str:
    """Escape a short line that begins at the left margin with a dot or ``From ``."""
    if line.startswith("."):
        return "=2E" + line[1:]
    return "=46rom " + line[5:] if line.startswith("From ") else line


def _split_risky_line(line: bytes) -> bytes:
    """Escape a leading dot or ``From ``, and split the line by soft line breaks where it is too long."""
    lines: list[bytes] = []
    while True:
        line = b"=2E" + line[1:] if line.startswith(b".") else line
        line = b"=46rom " + line[5:] if line.startswith(b"From ") else line
        if len(line) <= MAX_LINE:
            return b"\n".join([*lines, line])
        at = next(at for at in range(MAX_LINE - 1, 0, -1) if b"=" not in line[at - 2 : at])
        lines.append(line[:at] + b"=")
        line = line[at:]
