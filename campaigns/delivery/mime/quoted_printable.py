"""Quoted-printable encoding (RFC 2045, section 6.7) of whole bodies and of segments that can be joined.

Lines have at most 76 columns, none begins with a dot or ``From ``, none ends with a blank. So dot stuffing and
mbox quoting by relays change nothing.

A *segment* begins and ends at the left margin, with a soft line break where its text does not end a line. So segments
that are encoded once can be concatenated for each recipient.
"""

import binascii
import re
from functools import lru_cache

SOFT = "=\r\n"
LINE = 76
_RISKY = re.compile(rb"(?m)^(?:\.|From ).*$|^.{77,}$")
_CUT = 70
_EASY = re.compile(r"(?!\.|From |.*  )[!-<>-~ ]{1,75}\Z").match
_THREE, _FOUR = "\r\n" * 3, "\r\n" * 4
_SOFT_THREE = "=" + _THREE
_BLANK_LINES = re.compile(r"(?<!=)(?:\r\n){3,}")


def quoted(text: str) -> bytes:
    """``text`` encoded. Line ends become CRLF, and the last line gets one."""
    plain = text.replace("\r\n", "\n").replace("\r", "\n").rstrip("\n") + "\n"
    return _lines(plain).encode()


def segment(text: str) -> str:
    """``text`` encoded as a segment. Line ends become CRLF, and none is added."""
    plain = text.replace("\r\n", "\n").replace("\r", "\n")
    if not plain:
        return ""
    if plain.endswith("\n"):
        return _lines(plain)
    whole, end, last = _lines(plain + "\n")[:-2].rpartition("\r\n")
    if len(last) == LINE:  # No column is left for the "=" of the soft line break.
        at = next(at for at in range(_CUT, 0, -1) if "=" not in last[at - 2 : at])
        last = last[:at] + SOFT + _margin(last[at:])
    return f"{whole}{end}{last}{SOFT}"


_kept = lru_cache(4_096)(segment)


def cell(value: str) -> str:
    """The segment of one merge value. Plain ASCII values are not encoded; others are cached."""
    return value + SOFT if _EASY(value) else _kept(value)


def without_blank_runs(encoded: str) -> str:
    """An encoded text without leading empty lines, and with runs of empty lines reduced to one."""
    if encoded.startswith("\r\n"):
        encoded = encoded.lstrip("\r\n")
    # Counting substrings avoids the regular expression in the usual case. A soft line break consumes one line end of
    # the run that follows it.
    if _FOUR in encoded or encoded.count(_THREE) != encoded.count(_SOFT_THREE):
        return _BLANK_LINES.sub("\r\n\r\n", encoded)
    return encoded


def _lines(plain: str) -> str:
    encoded = binascii.b2a_qp(plain.encode("utf-8", "replace"), istext=True)
    encoded = _RUNS.sub(_hexed, encoded)
    return _RISKY.sub(lambda line: _safe(line.group()), encoded).replace(b"\n", b"\r\n").decode()


# Without tabs and runs of blanks, the body equals its DKIM relaxed canonical form (RFC 6376, section 3.4.4).
_RUNS = re.compile(rb"(?<= ) +|\t")


def _hexed(blanks: re.Match[bytes]) -> bytes:
    return b"".join(b"=%02X" % sign for sign in blanks.group())


def _margin(line: str) -> str:
    """Escape a short line that begins at the left margin with a dot or ``From ``."""
    if line.startswith("."):
        return "=2E" + line[1:]
    return "=46rom " + line[5:] if line.startswith("From ") else line


def _safe(line: bytes) -> bytes:
    """Escape a leading dot or ``From ``, and split the line by soft line breaks where it is too long."""
    lines: list[bytes] = []
    while True:
        line = b"=2E" + line[1:] if line.startswith(b".") else line
        line = b"=46rom " + line[5:] if line.startswith(b"From ") else line
        if len(line) <= LINE:
            return b"\n".join([*lines, line])
        at = next(at for at in range(LINE - 1, 0, -1) if b"=" not in line[at - 2 : at])
        lines.append(line[:at] + b"=")
        line = line[at:]
