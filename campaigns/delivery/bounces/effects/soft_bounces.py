"""Soft bounces: one means little, a row of them over weeks means that nobody is there."""

from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import ColumnElement, func, select, update
from sqlalchemy.orm import Session

from campaigns.delivery.bounces.models import Feedback, FeedbackType
from campaigns.delivery.bounces.parsing.classification import DISABLED

ENOUGH = 5
WITHIN = timedelta(weeks=13)
OVER = timedelta(weeks=1)
_ENOUGH_DISABLED = 2
"""Mails to a mailbox that its server calls switched off."""


@dataclass(frozen=True, slots=True)
class SoftBounceCount:
    """Soft bounces of one address that count, each mail once."""

    mails: int
    disabled: int
    first: datetime | None
    last: datetime | None

    @property
    def suffices(self) -> bool:
        if self.disabled >= _ENOUGH_DISABLED:
            return True
        if self.first is None or self.last is None:
            return False
        return self.mails >= ENOUGH and self.last - self.first >= OVER


def row(session: Session, address: str, at: datetime) -> SoftBounceCount:
    """Those of thirteen weeks up to ``at``."""
    mails = func.count(Feedback.send_id.distinct())
    asked = select(
        mails, mails.filter(Feedback.status == DISABLED), func.min(Feedback.at), func.max(Feedback.at)
    ).where(*_counting(address, at))
    return SoftBounceCount(*session.execute(asked).one())


def spend(session: Session, address: str, at: datetime) -> None:
    """They have led to a suppression: should somebody lift it, counting begins anew."""
    session.execute(
        update(Feedback)
        .where(*_counting(address, at))
        .values(led_to_suppression=True)
        .execution_options(synchronize_session=False)
    )


def _counting(address: str, at: datetime) -> tuple[ColumnElement[bool], ...]:
    return (
        Feedback.address == address,
        Feedback.feedback_type == FeedbackType.SOFT,
        Feedback.at > at - WITHIN,
        Feedback.led_to_suppression.is_(False),
    )
