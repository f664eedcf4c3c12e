"""Responses that are sent without Flask: their type, and the WSGI middleware that sends them."""

from collections.abc import Callable, Iterable
from http import HTTPStatus
from typing import Any

from campaigns.web.client_ip import WsgiApplication

Environ = dict[str, Any]
Header = tuple[str, str]
Answer = tuple[int, list[Header], bytes]
"""Status, headers and body."""


def in_front(answered: Callable[[Environ], Answer | None], wrapped: WsgiApplication) -> WsgiApplication:
    """WSGI application that sends ``answer(environ)``, and calls ``fallback`` when that returns None."""

    def application(environ: Environ, start_response: Any) -> Iterable[bytes]:
        found = answered(environ)
        if found is None:
            return wrapped(environ, start_response)
        status, headers, body = found
        start_response(f"{status} {HTTPStatus(status).phrase}", headers)
        # A list, not a tuple: granian sends it in one piece, but never responds to an empty tuple.
        return [body]

    return application
