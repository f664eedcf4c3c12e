"""Responses that are sent without Flask: their type, and the WSGI middleware that sends them."""

from collections.abc import Callable, Iterable
from http import HTTPStatus
from typing import Any

from campaigns.web.client_ip import WsgiApplication

Environ = dict[str, Any]
Header = tuple[str, str]
Answer = tuple[int, list[Header], bytes]
"""Status, headers and body."""


def with_fast_path(answer: Callable[[Environ], Answer | None], fallback: WsgiApplication) -> WsgiApplication:
    """WSGI application that sends ``answer(environ)``, and calls ``fallback`` when that returns None."""

    def application(environ: Environ, start_response: Any) -> Iterable[bytes]:
        fast_answer = answer(environ)
        if fast_answer is None:
            return fallback(environ, start_response)
        status, headers, body = fast_answer
        start_response(f"{status} {HTTPStatus(status).phrase}", headers)
        # A list, not a tuple: granian sends it in one piece, but never responds to an empty tuple.
        return [body]

    return application
