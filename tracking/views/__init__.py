"""Pages of figures and of what they are counted from, one noun per file."""

from flask import Blueprint

from tracking.views import campaigns, events, health, performance, timeline, today

blueprint = Blueprint("tracking", __name__)
for page in (today, campaigns, performance, timeline, events, health):
    blueprint.register_blueprint(page.blueprint)
