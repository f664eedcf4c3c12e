"""Quoted-printable bodies that survive every relay: no line over 76 columns, none that begins with
a dot or ``From``, no trailing blanks."""

import binascii
import re

_RISKY = re.compile(rb"(?m)^(?:\.|From ).*$|^.{77,}$")
_LINE = 76


def quoted(text: str) -> bytes:
    """``text`` encoded; its line ends become CRLF, the last line gets one too."""
    plain = text.replace("\r\n", "\n").replace("\r", "\n").rstrip("\n") + "\n"
    encoded = binascii.b2a_qp(plain.encode("utf-8", "replace"), istext=True)
    return _RISKY.sub(lambda line: _safe(line.group()), encoded).replace(b"\n", b"\r\n")


def _safe(line: bytes) -> bytes:
    if len(line) > _LINE:  # b2a_qp doesn't count the =20 of a trailing blank.
        return _RISKY.sub(lambda found: _safe(found.group()), line[:-3] + b"=") + b"\n" + line[-3:]
    head, rest = (b"=2E", line[1:]) if line.startswith(b".") else (b"=46rom ", line[5:])
    if len(head) + len(rest) <= _LINE:
        return head + rest
    return head + b"=\n" + _RISKY.sub(lambda found: _safe(found.group()), rest)
