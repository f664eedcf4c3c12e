"""Answers that need no Flask: what they are, and how a WSGI server gets them."""

from collections.abc import Callable, Iterable
from http import HTTPStatus
from typing import Any

from campaigns.web.client_ip import WsgiApplication

Environ = dict[str, Any]
Header = tuple[str, str]
Answer = tuple[int, list[Header], bytes]
"""Status, headers and body."""


def in_front(answered: Callable[[Environ], Answer | None], wrapped: WsgiApplication) -> WsgiApplication:
    """``wrapped``, asked only for what ``answered`` has no answer to."""

    def application(environ: Environ, start_response: Any) -> Iterable[bytes]:
        found = answered(environ)
        if found is None:
            return wrapped(environ, start_response)
        status, headers, body = found
        start_response(f"{status} {HTTPStatus(status).phrase}", headers)
        # A list, no tuple: granian sends it in one piece, and never answers with an empty tuple.
        return [body]

    return application
