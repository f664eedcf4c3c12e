"""The web server: granian's own command, with a short cut for whoever answers without WSGI.

For each request granian copies the process's environment into a new one, makes an object to be told the status,
and reads the number out of what it was told. That is a fifth of all that a hit costs. An application whose module
has a function ``quickly`` is asked by that first, with the variables of the request alone.
"""

import sys
from collections.abc import Callable
from typing import Any

from granian.cli import entrypoint
from granian.server import mp

_WRAP = "_wsgi_call_wrap"
"""By this name a worker finds what makes a WSGI application answer; no promise of granian's."""
_wrap: Callable[..., Callable[[Any, dict[str, Any]], int]] | None = getattr(mp, _WRAP, None)


def wrapped(
    application: Callable[..., Any], options: dict[str, Any], access_log: str | None = None
) -> Callable[[Any, dict[str, Any]], int]:
    """What granian calls for each request; it returns the status."""
    assert _wrap is not None
    by_wsgi = _wrap(application, options, access_log)
    quickly = getattr(sys.modules.get(application.__module__), "quickly", None)
    if quickly is None or access_log or options.get("url_path_prefix"):
        return by_wsgi

    def answer(protocol: Any, request: dict[str, Any]) -> int:
        found = quickly(request)
        if found is None:
            return by_wsgi(protocol, request)
        status = int(found[0][:3])
        protocol.response_bytes(status, found[1], found[2])
        return status

    return answer


if _wrap is not None:  # Else a version that does it otherwise: it answers all the same, by WSGI.
    setattr(mp, _WRAP, wrapped)

if __name__ == "__main__":
    entrypoint()  # type: ignore[no-untyped-call]
