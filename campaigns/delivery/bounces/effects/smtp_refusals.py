"""Refusals during the SMTP session, recorded like bounces that arrive later."""

from collections.abc import Sequence
from datetime import datetime
from typing import Protocol

from sqlalchemy.orm import Session

from campaigns.delivery.bounces.effects import record
from campaigns.delivery.bounces.models import Feedback, FeedbackSource, FeedbackType
from campaigns.delivery.bounces.parsing.classification import classify
from campaigns.delivery.models import ERASED_ADDRESS
from campaigns.delivery.smtp.replies import DeliveryResult, DeliveryStatus


class _SendRef(Protocol):
    @property
    def id(self) -> int: ...
    @property
    def address(self) -> str: ...


def feedback_type(result: DeliveryResult) -> FeedbackType:
    """Return the feedback type of a refused delivery."""
    return (
        FeedbackType.HARD
        if result.status is DeliveryStatus.NO_SUCH_RECIPIENT
        else classify("", result.reply).feedback_type
    )


def record_refusals(session: Session, results: Sequence[tuple[_SendRef, DeliveryResult, datetime]]) -> None:
    """Record the refusals among a batch's results, given as (send, result, time)."""
    record.record_smtp_refusals(
        session,
        [
            _feedback(send, outcome, at)
            for send, outcome, at in results
            if outcome.status in (DeliveryStatus.NO_SUCH_RECIPIENT, DeliveryStatus.REJECTED)
            and send.address != ERASED_ADDRESS
        ],
    )


def _feedback(send: _SendRef, result: DeliveryResult, at: datetime) -> Feedback:
    bounce_class = classify("", result.reply)
    return Feedback(
        send_id=send.id,
        activity_id=send.id >> 32,
        address=send.address,
        feedback_type=feedback_type(result),
        status=bounce_class.status,
        diagnostic=result.reply[:500],
        source=FeedbackSource.SMTP,
        key="relay",
        at=at,
        led_to_suppression=False,
    )
