"""Public views of delivery: the unsubscribe page and webhooks of mail providers.

Unsubscribing follows RFC 8058: GET only shows the page, POST unsubscribes, and there is no redirect.
"""

from typing import Any

from flask import Blueprint, g, make_response, render_template, request

from campaigns.delivery.bounces.intake import webhook_endpoint
from campaigns.delivery.bounces.models import FeedbackSource
from campaigns.delivery.bounces.webhooks import MAX_BODY_BYTES, PROVIDERS
from campaigns.delivery.bounces.webhooks.provider import WebhookRejected, WebhookRequest
from campaigns.delivery.sends import unsubscribe as sends_unsubscribe
from campaigns.delivery.sends.unsubscribe import Recipient
from campaigns.errors import Conflict, InvalidTokenError, NotFound, TemporaryError
from campaigns.web.client_ip import client_ip
from campaigns.web.pages.error_pages import error_text
from campaigns.web.request_session import db_session, release_write_lock
from campaigns.web.security.current_actor import public
from campaigns.web.security.rate_limits import RateLimit

blueprint = Blueprint("delivery_public", __name__)
_REJECTED_CALLS = RateLimit(count=60, seconds=60)
"""Limit for webhook calls with a bad signature, per client network."""


@blueprint.route("/u/<token>", methods=["GET", "POST"])
@public
def unsubscribe(token: str) -> Any:
    """The unsubscribe page for people, and the one-click endpoint for mail clients.

    The body of a POST is not read, because the token identifies the send.
    """
    try:
        recipient = sends_unsubscribe.find_recipient(db_session(), token)
    except InvalidTokenError as error:
        return _render_public("unsubscribe_bad", 404, words=error_text(error))
    if request.method == "POST":
        sends_unsubscribe.unsubscribe(db_session(), recipient)
        db_session().commit()
        return _unsubscribe_page(recipient, token, is_unsubscribed=True)
    return _unsubscribe_page(recipient, token, is_unsubscribed=recipient.send.unsubscribed_at is not None)


@blueprint.post("/u/<token>/undo")
@public
def undo(token: str) -> Any:
    """Undo the unsubscription. A CSRF token is required, because mail clients never call this."""
    try:
        recipient = sends_unsubscribe.find_recipient(db_session(), token)
    except InvalidTokenError as error:
        return _render_public("unsubscribe_bad", 404, words=error_text(error))
    try:
        mailable = sends_unsubscribe.undo_unsubscribe(db_session(), recipient)
    except Conflict:
        db_session().rollback()
        return _unsubscribe_page(
            recipient, token, is_unsubscribed=True, status=409
        )  # The page explains that undoing is no longer possible.
    db_session().commit()
    return _unsubscribe_page(
        recipient, token, is_unsubscribed=False, is_resubscribed=mailable, is_still_suppressed=not mailable
    )


@blueprint.post(f"/hooks/<any({','.join(source.value for source in PROVIDERS)}):name>")
@public
def hook(name: str) -> Any:
    """Webhook of a mail provider.

    200 once the call is stored, 403 for a bad signature, 404 for a provider that is not configured, 413 for a body
    that is too large, 503 when storing fails temporarily (the provider then retries).
    """
    if (request.content_length or 0) > MAX_BODY_BYTES:
        return "", 413
    body = request.stream.read(MAX_BODY_BYTES + 1)
    if len(body) > MAX_BODY_BYTES:
        return "", 413
    release_write_lock()
    try:
        webhook_endpoint.receive(
            FeedbackSource(name), WebhookRequest({key.lower(): value for key, value in request.headers}, body)
        )
    except WebhookRejected:
        _REJECTED_CALLS.check_ip(client_ip(request.environ))
        return "", 403
    except NotFound:
        return "", 404
    except TemporaryError:
        return "", 503
    return "", 200


def _unsubscribe_page(
    recipient: Recipient,
    token: str,
    *,
    is_unsubscribed: bool,
    is_resubscribed: bool = False,
    is_still_suppressed: bool = False,
    status: int = 200,
) -> Any:
    g.language = recipient.language
    if recipient.is_erased:
        return _render_public("unsubscribe_erased", 200)
    return _render_public(
        "unsubscribe",
        status,
        address=recipient.send.address,
        test=recipient.is_test,
        token=token,
        gone=is_unsubscribed,
        back=is_resubscribed,
        still=is_still_suppressed,
        may_undo=recipient.may_undo or recipient.is_test,
    )


def _render_public(name: str, status: int, **values: Any) -> Any:
    response = make_response(render_template(f"public/{name}.html", **values), status)
    # The URL contains the token, so other sites must not get it as a referrer. The CSRF check over HTTPS needs a
    # same-origin referrer, hence not "no-referrer".
    response.headers["Referrer-Policy"] = "same-origin"
    response.headers["X-Robots-Tag"] = "noindex, nofollow"
    return response
