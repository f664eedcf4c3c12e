"""Fragments that ask for themselves again, and are sent only when something in them changed."""

import hashlib
import re

from flask import Response, request


def seal(body: str) -> str:
    """The fragment with its own version in the address that it asks again."""
    return body.replace("seen=?", f"seen={_version(body)}")


def unless_seen(body: str) -> Response:
    """The fragment, or 204 when the reader has exactly this one: then nothing on the page moves."""
    if request.args.get("seen") == _version(body):
        return Response(status=204)
    return Response(seal(body), content_type="text/html; charset=utf-8")


_MARK = re.compile(r"&(?:amp;)?was=[^\"&]*")
"""What a fragment tells its next asking of the time in between; it differs each time and shows nothing."""


def _version(body: str) -> str:
    return hashlib.blake2b(_MARK.sub("", body).encode(), digest_size=8).hexdigest()
