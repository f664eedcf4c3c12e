"""Pages of figures and of what they are counted from, one noun per file."""

from flask import Blueprint

from tracking.views import (
    campaigns,
    company,
    events,
    figures,
    goals,
    health,
    heat,
    inspections,
    link_check,
    offline,
    performance,
    programs,
    shares,
    timeline,
    today,
    visits,
)

blueprint = Blueprint("tracking", __name__)
for page in (
    today,
    company,
    campaigns,
    performance,
    figures,
    heat,
    visits,
    link_check,
    timeline,
    events,
    goals,
    offline,
    programs,
    shares,
    health,
    inspections,
):
    blueprint.register_blueprint(page.blueprint)
