"""WSGI entry point: the Flask application, and the endpoints that are answered before Flask.

A WSGI server runs ``application``. Pixels, redirects and reports of the page script (:mod:`tracking.endpoints`) are
answered before Flask sees them.
"""

import gc
import sys
from typing import Any

from flask import Flask

from campaigns import config
from campaigns.accounts import api as accounts_api
from campaigns.accounts import public as accounts_public
from campaigns.accounts import views as accounts_views
from campaigns.audience import views as audience_views
from campaigns.capture import public as capture_public
from campaigns.capture import views as capture_views
from campaigns.content import views as content_views
from campaigns.delivery import public as delivery_public
from campaigns.delivery import views as delivery_views
from campaigns.delivery.transactional import api as delivery_api
from campaigns.leads import views as leads_views
from campaigns.mail_catcher import views as demo_views
from campaigns.planning import views as planning_views
from campaigns.web import app as web_app
from campaigns.web.client_ip import WsgiApplication, behind_proxies
from campaigns.web.fast_path import Answer, Environ, with_fast_path
from tracking import api as tracking_api
from tracking import public as tracking_public
from tracking import registration
from tracking import views as tracking_views
from tracking.endpoints import link_targets, page_script, pixels_and_redirects

registration.register_packages()

BLUEPRINT_MODULES = (
    accounts_views,
    accounts_public,
    accounts_api,
    audience_views,
    content_views,
    leads_views,
    capture_views,
    capture_public,
    planning_views,
    delivery_views,
    delivery_public,
    delivery_api,
    demo_views,
    tracking_views,
    tracking_public,
    tracking_api,
)
"""Modules with a ``blueprint``, in the order of registration."""


def create_app(settings: config.Settings | None = None) -> Flask:
    """The Flask application with the blueprints of every package."""
    if settings is not None:
        config.set_settings(settings)
    app = Flask("kampania", static_folder=None, template_folder=None)
    web_app.configure(app)
    for module in BLUEPRINT_MODULES:
        app.register_blueprint(module.blueprint)
    web_app.finish_setup(app)
    return app


def create_application() -> WsgiApplication:
    """The WSGI application: Flask behind the trusted proxies' headers, behind the fast path."""
    application: WsgiApplication = create_app().wsgi_app
    return with_fast_path(_fast_answer, behind_proxies(application))


def _fast_answer(environ: Environ) -> Answer | None:
    return pixels_and_redirects.handle_request(environ) or page_script.handle_request(environ)


_application: WsgiApplication | None = None
_SWITCH_INTERVAL = 0.0005
"""Seconds after which a computing thread yields the GIL: a hit takes microseconds and should not wait for a page
(``tests/benchmarks/hits.py``).
"""


def application(environ: dict[str, Any], start_response: Any) -> Any:
    """WSGI entry point. The application is built at the first request, so that importing this module has no effects."""
    global _application
    if _application is None:
        _application = create_application()
        link_targets.start_sync_thread()
        gc.collect()
        # Keeps the application out of garbage collection, which would stop every request while it scans all of it.
        gc.freeze()
        sys.setswitchinterval(_SWITCH_INTERVAL)
    return _application(environ, start_response)


def answer_fast(request: Environ) -> Answer | None:
    """The response of the fast path, computed from the request's variables alone; None for requests that need Flask.

    Called by :mod:`campaigns.web.wsgi_server`.
    """
    return (
        None
        if _application is None
        else pixels_and_redirects.handle_request(request) or page_script.handle_request(request)
    )
