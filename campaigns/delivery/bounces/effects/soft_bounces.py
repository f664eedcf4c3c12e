"""Soft bounce threshold: an address is suppressed after repeated soft bounces spread over at least a week.

Either five mails bounced within 13 weeks, the first and last at least a week apart, or two mails bounced
with 5.2.1 (mailbox disabled).
"""

from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import ColumnElement, func, select, update
from sqlalchemy.orm import Session

from campaigns.delivery.bounces.models import Feedback, FeedbackType
from campaigns.delivery.bounces.parsing.classification import MAILBOX_DISABLED

MIN_BOUNCES = 5
WINDOW = timedelta(weeks=13)
MIN_SPAN = timedelta(weeks=1)
_MIN_DISABLED = 2
"""Number of bounces with status 5.2.1 (mailbox disabled) that suffice."""


@dataclass(frozen=True, slots=True)
class SoftBounceCount:
    """Unspent soft bounces of one address; several reports about one mail count once."""

    mails: int
    disabled: int
    first: datetime | None
    last: datetime | None

    @property
    def reaches_threshold(self) -> bool:
        if self.disabled >= _MIN_DISABLED:
            return True
        if self.first is None or self.last is None:
            return False
        return self.mails >= MIN_BOUNCES and self.last - self.first >= MIN_SPAN


def count_soft_bounces(session: Session, address: str, at: datetime) -> SoftBounceCount:
    """Count the address's soft bounces in the 13 weeks before ``at``."""
    mails = func.count(Feedback.send_id.distinct())
    query = select(
        mails, mails.filter(Feedback.status == MAILBOX_DISABLED), func.min(Feedback.at), func.max(Feedback.at)
    ).where(*_unspent_in_window(address, at))
    return SoftBounceCount(*session.execute(query).one())


def mark_spent(session: Session, address: str, at: datetime) -> None:
    """Mark the counted bounces as spent, so that counting restarts if the suppression is lifted."""
    session.execute(
        update(Feedback)
        .where(*_unspent_in_window(address, at))
        .values(led_to_suppression=True)
        .execution_options(synchronize_session=False)
    )


def _unspent_in_window(address: str, at: datetime) -> tuple[ColumnElement[bool], ...]:
    return (
        Feedback.address == address,
        Feedback.feedback_type == FeedbackType.SOFT,
        Feedback.at > at - WINDOW,
        Feedback.led_to_suppression.is_(False),
    )
