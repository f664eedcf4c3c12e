"""The front door; the one file that knows every room.

``application`` is what a WSGI server runs: pixels and links are answered by ``tracking.hits``
before Flask sees them.
"""

from importlib import import_module
from importlib.util import find_spec

from flask import Flask

from campaigns import config
from campaigns.web import database

ROOMS = (
    "campaigns.accounts", "campaigns.audience", "campaigns.content", "campaigns.leads", "campaigns.capture",
    "campaigns.planning", "campaigns.delivery", "campaigns.demo", "tracking",
)  # fmt: skip
FACES = ("views", "public", "api")

for room in ROOMS:
    if find_spec(f"{room}.models"):
        import_module(f"{room}.models")


def create_app(settings: config.Settings | None = None) -> Flask:
    """The Flask application with the faces of every room."""
    if settings is not None:
        config.install(settings)
    app = Flask("kampania", static_folder=None, template_folder=None)
    database.init(app)
    for room in ROOMS:
        for face in FACES:
            if find_spec(f"{room}.{face}"):
                app.register_blueprint(import_module(f"{room}.{face}").blueprint)
    return app
