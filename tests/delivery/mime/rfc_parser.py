"""Independent MIME parser for tests, written from RFC 5322, 2045 and 2046 without Python's ``email`` package."""

import re
from dataclasses import dataclass


@dataclass(frozen=True)
class Part:
    headers: list[tuple[str, str]]
    body: bytes

    def header(self, name: str) -> str:
        (value,) = [value for key, value in self.headers if key.lower() == name.lower()]
        return value

    @property
    def text(self) -> str:
        assert self.header("Content-Transfer-Encoding") == "quoted-printable"
        return decode_quoted_printable(self.body).decode("utf-8").replace("\r\n", "\n")

    @property
    def parts(self) -> list["Part"]:
        boundary = re.fullmatch(r'multipart/alternative; boundary="([^"]+)"', self.header("Content-Type"))
        assert boundary
        delimiter = b"\r\n--" + boundary[1].encode()
        first, *inside, last = (b"\r\n" + self.body).split(delimiter)
        assert (first, last) == (b"", b"--\r\n")
        for each in inside:
            assert each.startswith(b"\r\n")
        return [parse(each[2:]) for each in inside]


def parse(raw: bytes) -> Part:
    head, _, body = raw.partition(b"\r\n\r\n")
    headers: list[tuple[str, str]] = []
    for line in head.decode().split("\r\n"):
        assert "\r" not in line
        assert "\n" not in line
        if line[0] in " \t":
            name, value = headers.pop()
            headers.append((name, value + line))
        else:
            field = re.fullmatch(r"([!-9;-~]+): ?(.*)", line)
            assert field, line
            headers.append((field[1], field[2]))
    return Part(headers, body)


def decode_quoted_printable(body: bytes) -> bytes:
    """Decode quoted-printable strictly by RFC 2045, section 6.7."""
    out = bytearray()
    position = 0
    while position < len(body):
        octet = body[position : position + 1]
        if octet != b"=":
            assert octet in b"\t\r\n" or b" " <= octet <= b"~", octet
            out += octet
            position += 1
        elif body[position + 1 : position + 3] == b"\r\n":
            position += 3
        else:
            digits = body[position + 1 : position + 3]
            assert re.fullmatch(rb"[0-9A-F]{2}", digits), digits
            out.append(int(digits, 16))
            position += 3
    return bytes(out)
