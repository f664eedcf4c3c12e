"""Pages of figures and of what they are counted from, one noun per file."""

from flask import Blueprint
from flask.blueprints import BlueprintSetupState

from tracking.views import (
    campaigns,
    company,
    events,
    figures,
    goals,
    health,
    heat,
    inspections,
    lead_channels,
    link_check,
    offline,
    performance,
    programs,
    shares,
    timeline,
    today,
    visits,
    writing,
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
    lead_channels,
):
    blueprint.register_blueprint(page.blueprint)


@blueprint.record_once
def _write(state: BlueprintSetupState) -> None:
    state.app.jinja_env.globals["writing"] = writing
