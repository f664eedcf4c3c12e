"""Receipt of webhook calls: authenticated, then stored as a row before the provider is answered."""

from sqlalchemy import select
from sqlalchemy.orm import Session

from campaigns import clock, db
from campaigns.delivery.bounces.effects import record
from campaigns.delivery.bounces.intake import queue
from campaigns.delivery.bounces.models import FeedbackSource, FeedbackType, Webhook
from campaigns.delivery.bounces.webhooks import PROVIDERS, ses
from campaigns.delivery.bounces.webhooks.common import WebhookRejected, WebhookRequest, WebhookSecrets
from campaigns.encryption import unseal
from campaigns.errors import NotFound
from campaigns.i18n import N_

SEALED = "webhook"
"""Purpose of the encrypted secrets."""


def receive(way: FeedbackSource, call: WebhookRequest) -> None:
    """Store an authentic call. Owns its transactions, since the check may fetch Amazon's certificate.

    Raises NotFound when the source is not configured, WebhookRejected (counted), and TemporaryError.
    """
    with db.reading() as session:
        keys = _keys(session, way)
    try:
        key = PROVIDERS[way].check(call, keys)
    except WebhookRejected:
        with db.transaction() as session:
            record.count(session, way, FeedbackType.REFUSED, clock.now())
        raise
    with db.transaction() as session:
        queue.keep(session, way, key, call.body, clock.now())
        if way is FeedbackSource.SES:
            _remember_subscription(session, call.body)


def _keys(session: Session, way: FeedbackSource) -> WebhookSecrets:
    row = session.get(Webhook, way)
    if row is None or not row.active:
        raise NotFound(N_("There is nothing at this address."))
    try:
        secret = unseal(row.secret, SEALED)
    except ValueError:
        secret = ""  # Without the secret no call can be checked, so every call is rejected.
    return WebhookSecrets(secret, frozenset(row.topics))


def _remember_subscription(session: Session, body: bytes) -> None:
    """Store the SubscribeURL of a SubscriptionConfirmation: a user confirms it, never the program."""
    asked = ses.subscription(body)
    if asked is None:
        return
    row = session.scalars(select(Webhook).where(Webhook.source == FeedbackSource.SES).with_for_update()).one()
    row.topics = {**row.topics, asked[0]: asked[1]}
