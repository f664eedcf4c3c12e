"""API authentication: the API key in the Authorization header determines the actor; sessions are ignored.

An endpoint behind :func:`require_api_key` responds in JSON, also with errors: ``{"error": {"status", "message",
"problems": [{"field", "row", "message"}]}}``.
"""

import json
from collections.abc import Callable
from functools import wraps
from typing import Any, TypeVar

from flask import abort, g, request

from campaigns.accounts import api_keys
from campaigns.accounts.actor import SCOPES, Actor
from campaigns.accounts.models import Scope
from campaigns.errors import Forbidden, Unauthorized, ValidationFailed, ValidationProblem
from campaigns.i18n import N_
from campaigns.web.client_ip import client_ip
from campaigns.web.request_session import db_session
from campaigns.web.security.rate_limits import RateLimit

MAX_BODY_BYTES = 1024 * 1024
"""1 MiB, about twice the size of a thousand events with all their details."""
View = TypeVar("View", bound=Callable[..., Any])
_INVALID_KEY_LIMIT = RateLimit(count=20, seconds=60)
"""Invalid keys per network: enough for a mistake in a client's settings, useless for guessing."""


def require_api_key(scope: Scope) -> Callable[[View], View]:
    """Require an API key with this scope; the view gets the key's ``actor`` as first argument."""

    return lambda view: _api_view(view, scope)


def require_any_api_key(view: View) -> View:
    """Require an API key with any scope; the view gets the key's ``actor`` as first argument."""
    return _api_view(view, None)


def json_body() -> dict[str, Any]:
    """The request's JSON object.

    Raises ValidationFailed for anything else, and for NUL, which PostgreSQL can't store. A body larger than the limit
    gives 413.
    """
    if (request.content_length or 0) > MAX_BODY_BYTES or len(request.get_data()) > MAX_BODY_BYTES:
        abort(413)
    try:
        body = json.loads(request.get_data())
    except (ValueError, RecursionError):
        raise ValidationFailed(ValidationProblem(N_("Send a JSON object in UTF-8."))) from None
    if not isinstance(body, dict):
        raise ValidationFailed(ValidationProblem(N_("Send a JSON object in UTF-8.")))
    if "\\u0000" in json.dumps(body):
        raise ValidationFailed(ValidationProblem(N_("Texts may not hold a NUL.")))
    return body


def _api_view(view: View, scope: Scope | None) -> View:
    @wraps(view)
    def authenticated_view(*args: Any, **kwargs: Any) -> Any:
        g.wants_json = True
        return view(_authenticate(scope), *args, **kwargs)

    authenticated_view.is_public = True  # type: ignore[attr-defined]  # No session is required,
    authenticated_view.scope = scope  # type: ignore[attr-defined]  # and none is read: see csrf_exemptions.py.
    return authenticated_view  # type: ignore[return-value]


def _authenticate(scope: Scope | None) -> Actor:
    kind, _, text = request.headers.get("Authorization", "").partition(" ")
    if kind.lower() != "bearer" or not text.strip():
        raise Unauthorized(N_("Send your API key: Authorization: Bearer kmp_…"))
    try:
        actor = api_keys.authenticate(db_session(), text.strip())
    except Forbidden as error:
        _INVALID_KEY_LIMIT.check_ip(client_ip(request.environ))
        raise Unauthorized(error.message) from error
    if scope is not None and not SCOPES[scope] <= actor.permissions:
        raise Forbidden(N_("This API key was not made for that."))
    return actor
