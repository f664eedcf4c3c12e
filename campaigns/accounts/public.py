"""Doors for people who have not signed in: first run, sign-in, forgotten passwords, health."""

from flask import Blueprint, Response, jsonify
from sqlalchemy import text

from campaigns.web.database import db_session
from campaigns.web.guards import public

blueprint = Blueprint("accounts_public", __name__)


@blueprint.get("/health")
@public
def health() -> Response:
    db_session().execute(text("SELECT 1"))
    return jsonify({"status": "ok"})
