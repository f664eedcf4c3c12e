"""Pages of reports, goals, events and health; one blueprint per module."""

from flask import Blueprint
from flask.blueprints import BlueprintSetupState

from tracking.views import api_docs, events, goals, health, home, maintenance, offline_imports, utm_lint
from tracking.views.reports import (
    campaign_list,
    click_map,
    contact_timeline,
    drilldown,
    lead_channels,
    metric_rendering,
    overview,
    performance,
    shared_reports,
    web_visits,
)

blueprint = Blueprint("tracking", __name__)
for page in (
    home,
    overview,
    campaign_list,
    performance,
    drilldown,
    click_map,
    web_visits,
    utm_lint,
    contact_timeline,
    events,
    goals,
    offline_imports,
    api_docs,
    shared_reports,
    health,
    maintenance,
    lead_channels,
):
    blueprint.register_blueprint(page.blueprint)


@blueprint.record_once
def _register_template_globals(state: BlueprintSetupState) -> None:
    state.app.jinja_env.globals["metric_html"] = metric_rendering
