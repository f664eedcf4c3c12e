"""Views of delivery: progress, sends, preflights, relays, sending domains, domain limits and bounces."""

from campaigns.delivery.views import bounces, domain_limits, domains, feedback, preflights, relays
from campaigns.delivery.views.sends import blueprint

blueprint.register_blueprint(relays.blueprint)
blueprint.register_blueprint(domain_limits.blueprint)
blueprint.register_blueprint(domains.blueprint)
blueprint.register_blueprint(preflights.blueprint)
blueprint.register_blueprint(bounces.blueprint)
blueprint.register_blueprint(feedback.blueprint)
