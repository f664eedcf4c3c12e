"""Pages go over the wire compressed, whether a proxy stands before us or not: a page of figures is a hundred kilobytes
of HTML, half a second on a phone.

A compressed page's length tells whoever listens, and can make the reader ask for words of their choice, whether those
words stand in it. So each answer is longer by a number of bytes that nobody can foresee: the name of a file, which
gzip allows and browsers pass over.
"""

import gzip
import io
import secrets

from flask import Flask, Response, request

LEAST = 1_400
"""Bytes that one packet carries: nothing is won below."""
LEVEL = 4
_MOST_PADDING = 96
_KINDS = frozenset({"text/html", "text/plain", "text/csv", "application/json"})


def _compress(response: Response) -> Response:
    if response.mimetype in _KINDS:
        response.vary.add("Accept-Encoding")
    if _worth_it(response):
        response.set_data(zipped(response.get_data()))
        response.headers["Content-Encoding"] = "gzip"
    return response


def _worth_it(response: Response) -> bool:
    return (
        response.mimetype in _KINDS
        and not response.is_streamed
        and not response.direct_passthrough
        and response.status_code == 200
        and "Content-Encoding" not in response.headers
        and "ETag" not in response.headers
        and "gzip" in request.headers.get("Accept-Encoding", "")
        and (response.calculate_content_length() or 0) >= LEAST
    )


def zipped(body: bytes) -> bytes:
    """The body in gzip's format, of a length that varies by chance."""
    file = io.BytesIO()
    name = "x" * secrets.randbelow(_MOST_PADDING)
    with gzip.GzipFile(filename=name, mode="wb", compresslevel=LEVEL, fileobj=file, mtime=0) as into:
        into.write(body)
    return file.getvalue()


def init(app: Flask) -> None:
    app.after_request(_compress)
