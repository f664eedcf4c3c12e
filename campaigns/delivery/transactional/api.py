"""REST API for single mails: request one, and query its state.

``POST /api/v1/mails`` takes ``{"external_id", "message", "to", "fields", "transactional"}`` and returns
``{"id", "new", "state", …}``: 202 for a new mail, 200 for an ``external_id`` that was requested before. Errors: 400
for an invalid field, 401 without a valid key, 403 for a key without the scope, 409 for an ``external_id`` used for
another mail, 429 (with Retry-After) for more than 600 requests a minute.
"""

from typing import Any

from flask import Blueprint, jsonify

from campaigns import db
from campaigns.accounts.actor import Actor
from campaigns.accounts.models import Scope
from campaigns.content import versions
from campaigns.delivery.models import Send
from campaigns.delivery.transactional import service
from campaigns.delivery.transactional.service import TransactionalMailRequest
from campaigns.errors import NotFound, ValidationFailed, ValidationProblem
from campaigns.i18n import N_
from campaigns.web.request_session import db_session
from campaigns.web.security.api_auth import json_body, require_api_key
from campaigns.web.security.rate_limits import RateLimit

blueprint = Blueprint("delivery_api", __name__)
_RATE_LIMIT = RateLimit(count=600, seconds=60)
_FIELD_TYPES: dict[str, tuple[type, ...]] = {
    "external_id": (str,),
    "message": (str, int),
    "to": (str,),
    "fields": (dict,),
    "transactional": (bool,),
}


@blueprint.post("/api/v1/mails")
@require_api_key(Scope.MAIL)
def send(actor: Actor) -> Any:
    """Queue one mail; see the module's docstring."""
    _RATE_LIMIT.check_key(str(actor.id))
    mail_request = _parse_request(json_body())
    with (
        db.read_only_session() as read_session
    ):  # Compile before the write transaction, so that other writers need not wait for it.
        versions.precompile(read_session, service.find_message(read_session, mail_request.message).id)
    queued, is_new = service.request_mail(db_session(), actor, mail_request)
    body = _send_json(queued) | {"new": is_new}
    db_session().commit()
    return jsonify(body), 202 if is_new else 200


@blueprint.get("/api/v1/mails/<send_id>")
@require_api_key(Scope.MAIL)
def state(_actor: Actor, send_id: str) -> Any:
    """The state of a requested mail."""
    if not (send_id.isascii() and send_id.isdigit() and int(send_id) < 2**63):
        raise NotFound(N_("There is no such mail."))
    body = _send_json(service.get_requested_send(db_session(), int(send_id)))
    db_session().commit()
    return jsonify(body)


def _parse_request(body: dict[str, Any]) -> TransactionalMailRequest:
    problems = [
        ValidationProblem(N_("No mail has a field of this name."), str(name)[:80])
        for name in body
        if name not in _FIELD_TYPES
    ]
    for name, kinds in _FIELD_TYPES.items():
        value = body.get(name)
        if value is None and name in ("fields", "transactional"):
            continue
        is_invalid = type(value) not in kinds or (isinstance(value, int) and not abs(value) < 2**63)
        if is_invalid or (name == "fields" and not all(isinstance(each, str) for each in (value or {}).values())):
            problems.append(ValidationProblem(N_("This is missing, or of another kind than expected."), name))
    if problems:
        raise ValidationFailed(problems)
    return TransactionalMailRequest(**{name: value for name, value in body.items() if value is not None})


def _send_json(send: Send) -> dict[str, object]:
    return {
        "id": str(send.id),
        "external_id": send.occasion,
        "to": send.address,
        "state": send.state.value,
        "reason": send.reason,
        "reply": send.reply,
        "attempts": send.attempts,
        "due_at": send.due_at.isoformat() if send.due_at else None,
        "sent_at": send.sent_at.isoformat() if send.sent_at else None,
        "bounced_at": send.bounced_at.isoformat() if send.bounced_at else None,
    }
