"""The web server: granian's command, with a fast path for responses that need no WSGI.

For each request granian copies the process's environment into a new one and creates an object that receives the
status, from which it parses the number (``tests/benchmarks/hits.py`` shows the server's cost beside ours). If the
application's module has a function ``answer_fast``, it is called first, with the variables of the request alone.

A response that stays open (:mod:`campaigns.web.pages.server_sent_events`) gets a thread of its own,
not one of the request threads.
"""

import sys
import threading
from collections.abc import Callable
from typing import Any

from granian import _signals
from granian.cli import entrypoint
from granian.server import mp

from campaigns.web.pages import server_sent_events

_WRAP = "_wsgi_call_wrap"
"""The function by which a granian worker wraps a WSGI application; not a public API of granian."""
_wrap: Callable[..., Callable[[Any, dict[str, Any]], int]] | None = getattr(mp, _WRAP, None)


def wrapped(
    application: Callable[..., Any], options: dict[str, Any], access_log: str | None = None
) -> Callable[[Any, dict[str, Any]], int]:
    """The function that granian calls for each request; it returns the status."""
    assert _wrap is not None
    by_wsgi = _wrap(application, options, access_log)
    quickly = getattr(sys.modules.get(application.__module__), "quickly", None)
    asks_quickly = quickly is not None and not access_log and not options.get("url_path_prefix")

    def answer(protocol: Any, request: dict[str, Any]) -> int:
        found = quickly(request) if asks_quickly else None  # type: ignore[misc]
        if found is None:
            if request.get("HTTP_ACCEPT") == "text/event-stream":
                request[server_sent_events.ASIDE] = True
                protocol = _ThreadedStream(protocol)
            return by_wsgi(protocol, request)
        status: int
        status, headers, body = found
        protocol.response_bytes(status, headers, body)
        return status

    return answer


class _ThreadedStream:
    """Granian's protocol object, except that it sends a stream of events from another thread."""

    def __init__(self, protocol: Any) -> None:
        self._protocol = protocol
        self.response_bytes = protocol.response_bytes

    def response_iter(self, status: int, headers: list[tuple[str, str]], body: Any) -> None:
        said: tuple[Any, ...] = (status, headers, body)
        if any(value.startswith("text/event-stream") for name, value in headers if name == "Content-Type"):
            threading.Thread(target=self._protocol.response_iter, args=said, name="stream", daemon=True).start()
        else:
            self._protocol.response_iter(*said)


_listen = _signals.set_main_signals


def _listening(stop: Callable[[int, Any], None], *others: Any) -> None:
    """Install granian's signal handlers, which first end all streams: an open stream would keep the worker alive."""

    def stopping(number: int, frame: Any) -> None:
        server_sent_events.watch.end()
        stop(number, frame)

    _listen(stopping, *others)  # type: ignore[no-untyped-call]


# Other granian versions lack the function: then everything is answered by WSGI, and there are no streams.
if _wrap is not None:
    setattr(mp, _WRAP, wrapped)
    _signals.set_main_signals = _listening

if __name__ == "__main__":
    entrypoint()  # type: ignore[no-untyped-call]
