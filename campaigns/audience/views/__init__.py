"""Pages of contacts, lists, imports and suppressions."""

from flask import Blueprint

from campaigns.audience.views import contacts, imports, lists, suppressions

blueprint = Blueprint("audience", __name__)
for page in (contacts, lists, imports, suppressions):
    blueprint.register_blueprint(page.blueprint)
