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

_WRAP_NAME = "_wsgi_call_wrap"
"""The function by which a granian worker wraps a WSGI application; not a public API of granian."""
_granian_wrap: Callable[..., Callable[[Any, dict[str, Any]], int]] | None = getattr(mp, _WRAP_NAME, None)


def wrap_application(
    application: Callable[..., Any], options: dict[str, Any], access_log: str | None = None
) -> Callable[[Any, dict[str, Any]], int]:
    """The function that granian calls for each request; it returns the status."""
    assert _granian_wrap is not None
    call_wsgi = _granian_wrap(application, options, access_log)
    answer_fast = getattr(sys.modules.get(application.__module__), "answer_fast", None)
    use_fast_path = answer_fast is not None and not access_log and not options.get("url_path_prefix")

    def handle_request(protocol: Any, request: dict[str, Any]) -> int:
        fast_answer = answer_fast(request) if use_fast_path else None  # type: ignore[misc]
        if fast_answer is None:
            if request.get("HTTP_ACCEPT") == "text/event-stream":
                request[server_sent_events.OWN_THREAD] = True
                protocol = _ThreadedStream(protocol)
            return call_wsgi(protocol, request)
        status: int
        status, headers, body = fast_answer
        protocol.response_bytes(status, headers, body)
        return status

    return handle_request


class _ThreadedStream:
    """Granian's protocol object, except that it sends a stream of events from another thread."""

    def __init__(self, protocol: Any) -> None:
        self._protocol = protocol
        self.response_bytes = protocol.response_bytes

    def response_iter(self, status: int, headers: list[tuple[str, str]], body: Any) -> None:
        response: tuple[Any, ...] = (status, headers, body)
        if any(value.startswith("text/event-stream") for name, value in headers if name == "Content-Type"):
            threading.Thread(target=self._protocol.response_iter, args=response, name="stream", daemon=True).start()
        else:
            self._protocol.response_iter(*response)


_granian_set_signals = _signals.set_main_signals


def _set_signals(stop: Callable[[int, Any], None], *others: Any) -> None:
    """Install granian's signal handlers, which first end all streams: an open stream would keep the worker alive."""

    def stop_with_streams(number: int, frame: Any) -> None:
        server_sent_events.change_poller.stop()
        stop(number, frame)

    _granian_set_signals(stop_with_streams, *others)  # type: ignore[no-untyped-call]


# Other granian versions lack the function: then everything is answered by WSGI, and there are no streams.
if _granian_wrap is not None:
    setattr(mp, _WRAP_NAME, wrap_application)
    _signals.set_main_signals = _set_signals

if __name__ == "__main__":
    entrypoint()  # type: ignore[no-untyped-call]
