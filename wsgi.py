"""The front door; the one file that knows every room.

``application`` is what a WSGI server runs: pixels and links are answered by ``tracking.hits``, reports
of the page script by ``tracking.beacons``, before Flask sees them.
"""

import gc
import sys
from importlib import import_module
from importlib.util import find_spec
from typing import Any

from flask import Flask

import campaigns.setbacks  # noqa: F401  (a table of no room)
from campaigns import config
from campaigns.web import frame
from campaigns.web.network import WsgiApplication, behind_proxies
from campaigns.web.quick import Answer, Environ, in_front
from tracking import beacons, destinations, hits

ROOMS = (
    "campaigns.accounts", "campaigns.audience", "campaigns.content", "campaigns.leads", "campaigns.capture",
    "campaigns.planning", "campaigns.delivery", "campaigns.delivery.bounces", "campaigns.demo", "tracking",
)  # fmt: skip
FACES = ("views", "public", "api")

KNOWN = ("models", "erasing", "uniting")
"""What every process must know of a room: its tables, and its part in erasing a person and in uniting two."""

for room in ROOMS:
    for name in KNOWN:
        if find_spec(f"{room}.{name}"):
            import_module(f"{room}.{name}")


def create_app(settings: config.Settings | None = None) -> Flask:
    """The Flask application with the faces of every room."""
    if settings is not None:
        config.install(settings)
    app = Flask("kampania", static_folder=None, template_folder=None)
    frame.build(app)
    for room in ROOMS:
        for face in FACES:
            if find_spec(f"{room}.{face}"):
                blueprint = getattr(import_module(f"{room}.{face}"), "blueprint", None)
                if blueprint is not None:  # None: a folder without faces yet.
                    app.register_blueprint(blueprint)
    frame.finish(app)
    return app


def create_application() -> WsgiApplication:
    """What a server runs: Flask, and before it whatever answers without Flask."""
    application: WsgiApplication = create_app().wsgi_app
    return in_front(_answered, behind_proxies(application))


def _answered(environ: Environ) -> Answer | None:
    return hits.answered(environ) or beacons.answered(environ)


_application: WsgiApplication | None = None
_TURN = 0.0005
"""Seconds after which a thread that computes makes way: hits take some microseconds, and should not wait for a page."""


def application(environ: dict[str, Any], start_response: Any) -> Any:
    """The WSGI entry point, built at the first request, so that importing this file touches nothing."""
    global _application
    if _application is None:
        _application = create_application()
        destinations.keep_synced()
        gc.collect()
        gc.freeze()  # The house itself is no garbage: searching all of it would keep every request waiting.
        sys.setswitchinterval(_TURN)
    return _application(environ, start_response)


def quickly(request: Environ) -> Answer | None:
    """What is answered without Flask, from a request's own variables alone; None for everything else.
    See :mod:`campaigns.web.server`."""
    return None if _application is None else hits.answered(request) or beacons.answered(request)
