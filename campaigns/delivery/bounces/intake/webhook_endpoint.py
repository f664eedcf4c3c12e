"""Receipt of webhook calls: authenticated, then stored as a row before the provider is answered."""

from sqlalchemy import select
from sqlalchemy.orm import Session

from campaigns import clock, db
from campaigns.delivery.bounces.effects import record
from campaigns.delivery.bounces.intake import queue
from campaigns.delivery.bounces.models import FeedbackSource, FeedbackType, Webhook
from campaigns.delivery.bounces.webhooks import PROVIDERS, ses
from campaigns.delivery.bounces.webhooks.provider import WebhookRejected, WebhookRequest, WebhookSecrets
from campaigns.encryption import decrypt
from campaigns.errors import NotFound
from campaigns.i18n import N_

WEBHOOK_SECRET_PURPOSE = "webhook"
"""Purpose of the encrypted secrets."""


def receive(source: FeedbackSource, request: WebhookRequest) -> None:
    """Store an authentic call. Owns its transactions, since the check may fetch Amazon's certificate.

    Raises NotFound when the source is not configured, WebhookRejected (counted), and TemporaryError.
    """
    with db.read_only_session() as session:
        secrets = _load_secrets(session, source)
    try:
        key = PROVIDERS[source].check(request, secrets)
    except WebhookRejected:
        with db.transaction() as session:
            record.add_count(session, source, FeedbackType.REFUSED, clock.now())
        raise
    with db.transaction() as session:
        queue.enqueue(session, source, key, request.body, clock.now())
        if source is FeedbackSource.SES:
            _store_subscription(session, request.body)


def _load_secrets(session: Session, source: FeedbackSource) -> WebhookSecrets:
    row = session.get(Webhook, source)
    if row is None or not row.active:
        raise NotFound(N_("There is nothing at this address."))
    try:
        secret = decrypt(row.secret, WEBHOOK_SECRET_PURPOSE)
    except ValueError:
        secret = ""  # Without the secret no call can be checked, so every call is rejected.
    return WebhookSecrets(secret, frozenset(row.topics))


def _store_subscription(session: Session, body: bytes) -> None:
    """Store the SubscribeURL of a SubscriptionConfirmation: a user confirms it, never the program."""
    subscription = ses.pending_subscription(body)
    if subscription is None:
        return
    row = session.scalars(select(Webhook).where(Webhook.source == FeedbackSource.SES).with_for_update()).one()
    row.topics = {**row.topics, subscription[0]: subscription[1]}
