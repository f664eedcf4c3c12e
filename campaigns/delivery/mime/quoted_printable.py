"""Quoted-printable bodies that survive every relay: no line over 76 columns, none that begins with
a dot or ``From``, no trailing blanks; so that dot-stuffing has nothing to do.

A *segment* begins and ends at the left margin (with a soft break where its text doesn't end a
line), so that segments that were encoded apart, long ago, can simply be joined.
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
    """``text`` encoded; its line ends become CRLF, the last line gets one too."""
    plain = text.replace("\r\n", "\n").replace("\r", "\n").rstrip("\n") + "\n"
    return _lines(plain).encode()


def segment(text: str) -> str:
    """``text`` encoded as a segment; line ends become CRLF, none is added."""
    plain = text.replace("\r\n", "\n").replace("\r", "\n")
    if not plain:
        return ""
    if plain.endswith("\n"):
        return _lines(plain)
    whole, end, last = _lines(plain + "\n")[:-2].rpartition("\r\n")
    if len(last) == LINE:  # No column is left for the soft break's sign.
        at = next(at for at in range(_CUT, 0, -1) if "=" not in last[at - 2 : at])
        last = last[:at] + SOFT + _margin(last[at:])
    return f"{whole}{end}{last}{SOFT}"


_kept = lru_cache(4_096)(segment)


def cell(value: str) -> str:
    """The segment of one recipient's value; most need no encoding at all."""
    return value + SOFT if _EASY(value) else _kept(value)


def without_blank_runs(encoded: str) -> str:
    """An encoded text with at most one empty line at a stretch, and none at its beginning."""
    if encoded.startswith("\r\n"):
        encoded = encoded.lstrip("\r\n")
    # Counting costs a fiftieth of the expression. What follows a soft break is one line end less.
    if _FOUR in encoded or encoded.count(_THREE) != encoded.count(_SOFT_THREE):
        return _BLANK_LINES.sub("\r\n\r\n", encoded)
    return encoded


def _lines(plain: str) -> str:
    encoded = binascii.b2a_qp(plain.encode("utf-8", "replace"), istext=True)
    encoded = _RUNS.sub(_hexed, encoded)
    return _RISKY.sub(lambda line: _safe(line.group()), encoded).replace(b"\n", b"\r\n").decode()


# One blank at a stretch and no tab: DKIM's relaxed form of the body is then the body itself.
_RUNS = re.compile(rb"(?<= ) +|\t")


def _hexed(blanks: re.Match[bytes]) -> bytes:
    return b"".join(b"=%02X" % sign for sign in blanks.group())


def _margin(line: str) -> str:
    """``line``, short, when it is to stand at the left margin."""
    if line.startswith("."):
        return "=2E" + line[1:]
    return "=46rom " + line[5:] if line.startswith("From ") else line


def _safe(line: bytes) -> bytes:
    """``line`` without what is risky in it, in as many lines as that takes."""
    lines: list[bytes] = []
    while True:
        line = b"=2E" + line[1:] if line.startswith(b".") else line
        line = b"=46rom " + line[5:] if line.startswith(b"From ") else line
        if len(line) <= LINE:
            return b"\n".join([*lines, line])
        at = next(at for at in range(LINE - 1, 0, -1) if b"=" not in line[at - 2 : at])
        lines.append(line[:at] + b"=")
        line = line[at:]
