"""Where recipients enter: the unsubscribe page. RFC 8058: GET shows, POST acts, no redirect."""

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
"""Calls of one network whose check fails: each costs a signature and a count."""


@blueprint.route("/u/<token>", methods=["GET", "POST"])
@public
def unsubscribe(token: str) -> Any:
    """One address for people and for mail programs. The body of a POST is not read: the token says all."""
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
    """Back on the list; with a CSRF token, since no mail program needs it."""
    try:
        found = sends_unsubscribe.recipient(db_session(), token)
    except BadToken as error:
        return _page("unsubscribe_bad", 404, words=say(error))
    try:
        mailable = sends_unsubscribe.come_back(db_session(), found)
    except Conflict:
        db_session().rollback()
        return _shown(found, token, gone=True, status=409)  # The page says that it is too late.
    db_session().commit()
    return _shown(found, token, gone=False, back=mailable, still=not mailable)


@blueprint.post(f"/hooks/<any({','.join(way.value for way in PROVIDERS)}):name>")
@public
def hook(name: str) -> Any:
    """A provider's call; 200 once it is kept."""
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
    # The address holds the token, so no other site may read it; ours must, for the check of CSRF over HTTPS.
    answer.headers["Referrer-Policy"] = "same-origin"
    answer.headers["X-Robots-Tag"] = "noindex, nofollow"
    return answer
