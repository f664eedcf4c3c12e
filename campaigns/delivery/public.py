"""Public views of delivery: the unsubscribe page and webhooks of mail providers.

Unsubscribing follows RFC 8058: GET only shows the page, POST unsubscribes, and there is no redirect.
"""

from typing import Any

from flask import Blueprint, g, make_response, render_template, request

from campaigns.delivery.bounces.intake import webhook_endpoint
from campaigns.delivery.bounces.models import FeedbackSource
from campaigns.delivery.bounces.webhooks import LARGEST, PROVIDERS
from campaigns.delivery.bounces.webhooks.common import WebhookRejected, WebhookRequest
from campaigns.delivery.sends import unsubscribe as sends_unsubscribe
from campaigns.delivery.sends.unsubscribe import Recipient
from campaigns.errors import BadToken, Conflict, NotFound, TemporaryError
from campaigns.web.client_ip import client_ip
from campaigns.web.pages.error_pages import say
from campaigns.web.request_session import db_session, let_others_write
from campaigns.web.security.current_actor import public
from campaigns.web.security.rate_limits import RateLimit

blueprint = Blueprint("delivery_public", __name__)
_FORGED = RateLimit(count=60, seconds=60)
"""Limit for webhook calls with a bad signature, per client network."""


@blueprint.route("/u/<token>", methods=["GET", "POST"])
@public
def unsubscribe(token: str) -> Any:
    """The unsubscribe page for people, and the one-click endpoint for mail clients.

    The body of a POST is not read, because the token identifies the send.
    """
    try:
        found = sends_unsubscribe.recipient(db_session(), token)
    except BadToken as error:
        return _page("unsubscribe_bad", 404, words=say(error))
    if request.method == "POST":
        sends_unsubscribe.unsubscribe(db_session(), found)
        db_session().commit()
        return _shown(found, token, gone=True)
    return _shown(found, token, gone=found.send.unsubscribed_at is not None)


@blueprint.post("/u/<token>/undo")
@public
def undo(token: str) -> Any:
    """Undo the unsubscription. A CSRF token is required, because mail clients never call this."""
    try:
        found = sends_unsubscribe.recipient(db_session(), token)
    except BadToken as error:
        return _page("unsubscribe_bad", 404, words=say(error))
    try:
        mailable = sends_unsubscribe.come_back(db_session(), found)
    except Conflict:
        db_session().rollback()
        return _shown(found, token, gone=True, status=409)  # The page explains that undoing is no longer possible.
    db_session().commit()
    return _shown(found, token, gone=False, back=mailable, still=not mailable)


@blueprint.post(f"/hooks/<any({','.join(way.value for way in PROVIDERS)}):name>")
@public
def hook(name: str) -> Any:
    """Webhook of a mail provider.

    200 once the call is stored, 403 for a bad signature, 404 for a provider that is not configured, 413 for a body
    that is too large, 503 when storing fails temporarily (the provider then retries).
    """
    if (request.content_length or 0) > LARGEST:
        return "", 413
    body = request.stream.read(LARGEST + 1)
    if len(body) > LARGEST:
        return "", 413
    let_others_write()
    try:
        webhook_endpoint.receive(
            FeedbackSource(name), WebhookRequest({key.lower(): value for key, value in request.headers}, body)
        )
    except WebhookRejected:
        _FORGED.check(client_ip(request.environ))
        return "", 403
    except NotFound:
        return "", 404
    except TemporaryError:
        return "", 503
    return "", 200


def _shown(
    found: Recipient, token: str, *, gone: bool, back: bool = False, still: bool = False, status: int = 200
) -> Any:
    g.language = found.language
    if found.erased:
        return _page("unsubscribe_erased", 200)
    return _page(
        "unsubscribe",
        status,
        address=found.send.address,
        test=found.test,
        token=token,
        gone=gone,
        back=back,
        still=still,
        may_undo=found.may_undo or found.test,
    )


def _page(name: str, status: int, **values: Any) -> Any:
    answer = make_response(render_template(f"public/{name}.html", **values), status)
    # The URL contains the token, so other sites must not get it as a referrer. The CSRF check over HTTPS needs a
    # same-origin referrer, hence not "no-referrer".
    answer.headers["Referrer-Policy"] = "same-origin"
    answer.headers["X-Robots-Tag"] = "noindex, nofollow"
    return answer
