"""Pages of mailings on their way, and of the relays that carry them."""

<<<<<<< HEAD
from campaigns.delivery.views import domain_limits, domains, preflights, relays
=======
from campaigns.delivery.views import bounces, domains, preflights, relays
>>>>>>> 2183349 (Take bounces from mailboxes and providers)
from campaigns.delivery.views.mailings import blueprint

blueprint.register_blueprint(bounces.blueprint)
blueprint.register_blueprint(relays.blueprint)
blueprint.register_blueprint(domain_limits.blueprint)
blueprint.register_blueprint(domains.blueprint)
blueprint.register_blueprint(preflights.blueprint)
