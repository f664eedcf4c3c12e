"""Refusals during the SMTP session, recorded like bounces that arrive later."""

from collections.abc import Sequence
from datetime import datetime
from typing import Protocol

from sqlalchemy.orm import Session

from campaigns.delivery.bounces.effects import record
from campaigns.delivery.bounces.models import Feedback, FeedbackSource, FeedbackType
from campaigns.delivery.bounces.parsing.classification import judge
from campaigns.delivery.models import ERASED
from campaigns.delivery.smtp.replies import DeliveryResult, DeliveryStatus


class _SendRef(Protocol):
    @property
    def id(self) -> int: ...
    @property
    def address(self) -> str: ...


def finding(outcome: DeliveryResult) -> FeedbackType:
    """Return the feedback type of a refused delivery."""
    return FeedbackType.HARD if outcome.status is DeliveryStatus.NO_SUCH_RECIPIENT else judge("", outcome.reply).finding


def note(session: Session, results: Sequence[tuple[_SendRef, DeliveryResult, datetime]]) -> None:
    """Record the refusals among a batch's results, given as (send, result, time)."""
    record.refused_at_once(
        session,
        [
            _feedback(send, outcome, at)
            for send, outcome, at in results
            if outcome.status in (DeliveryStatus.NO_SUCH_RECIPIENT, DeliveryStatus.REJECTED) and send.address != ERASED
        ],
    )


def _feedback(send: _SendRef, outcome: DeliveryResult, at: datetime) -> Feedback:
    verdict = judge("", outcome.reply)
    return Feedback(
        send_id=send.id,
        activity_id=send.id >> 32,
        address=send.address,
        feedback_type=finding(outcome),
        status=verdict.status,
        diagnostic=outcome.reply[:500],
        source=FeedbackSource.SMTP,
        key="relay",
        at=at,
        led_to_suppression=False,
    )
