"""Gzip compression of responses, independent of a proxy in front.

The length of a compressed page reveals whether it contains a text that an attacker can place in it (BREACH). So
each response is longer by an unpredictable number of bytes: a file name in the gzip header, which browsers ignore.
"""

import gzip
import io
import secrets

from flask import Flask, Response, request

MIN_BYTES = 1_400
"""Bytes that one packet carries: smaller bodies gain nothing."""
LEVEL = 4
_MAX_PADDING = 96
_COMPRESSIBLE = frozenset({"text/html", "text/plain", "text/csv", "application/json"})


def _compress(response: Response) -> Response:
    if response.mimetype in _COMPRESSIBLE:
        response.vary.add("Accept-Encoding")
    if _should_compress(response):
        response.set_data(gzip_padded(response.get_data()))
        response.headers["Content-Encoding"] = "gzip"
    return response


def _should_compress(response: Response) -> bool:
    return (
        response.mimetype in _COMPRESSIBLE
        and not response.is_streamed
        and not response.direct_passthrough
        and response.status_code == 200
        and "Content-Encoding" not in response.headers
        and "ETag" not in response.headers
        and "gzip" in request.headers.get("Accept-Encoding", "")
        and (response.calculate_content_length() or 0) >= MIN_BYTES
    )


def gzip_padded(body: bytes) -> bytes:
    """The body in gzip format, with a length that varies at random."""
    file = io.BytesIO()
    name = "x" * secrets.randbelow(_MAX_PADDING)
    with gzip.GzipFile(filename=name, mode="wb", compresslevel=LEVEL, fileobj=file, mtime=0) as gzip_file:
        gzip_file.write(body)
    return file.getvalue()


def init(app: Flask) -> None:
    app.after_request(_compress)
