"""Polled page fragments, which are sent again only when their content changed."""

import hashlib
import re

from flask import Response, request


def with_version(body: str) -> str:
    """The fragment with its own version filled into its polling URL (``seen=?``)."""
    return body.replace("seen=?", f"seen={_version(body)}")


def unless_unchanged(body: str) -> Response:
    """The fragment, or 204 when the client already has this version, so that nothing on the page moves."""
    if request.args.get("seen") == _version(body):
        return Response(status=204)
    return Response(with_version(body), content_type="text/html; charset=utf-8")


_POLL_MARK = re.compile(r"&(?:amp;)?was=[^\"&]*")
"""The count and time of this poll, which the URL of the next one carries; they are not displayed, so versions ignore
them.
"""


def _version(body: str) -> str:
    return hashlib.blake2b(_POLL_MARK.sub("", body).encode(), digest_size=8).hexdigest()
