"""A provider's call: checked, then kept as a row before it is answered."""

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
"""Purpose of the sealed secrets."""


def receive(way: FeedbackSource, call: WebhookRequest) -> None:
    """Keep a call that is its provider's own; owns its transactions, since a check may ask Amazon.

    Raises NotFound where nobody set the way up, Refused (counted), and Passing.
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
        secret = ""  # Without it no call can be checked, so each is refused.
    return WebhookSecrets(secret, frozenset(row.topics))


def _remember_subscription(session: Session, body: bytes) -> None:
    """Amazon asks whether we want this topic: a person says yes, never a program."""
    asked = ses.subscription(body)
    if asked is None:
        return
    row = session.scalars(select(Webhook).where(Webhook.source == FeedbackSource.SES).with_for_update()).one()
    row.topics = {**row.topics, asked[0]: asked[1]}
