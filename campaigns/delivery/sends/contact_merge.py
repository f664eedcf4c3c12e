"""Whoever turns out to be another recipient of the same mail doesn't get it twice."""

from sqlalchemy import select, update
from sqlalchemy.orm import Session, aliased

from campaigns.delivery.models import NEVER_SENT, Send, SendState, SkipReason

_NOT_SENT_YET = (SendState.QUEUED, SendState.DEFERRED, SendState.HELD)


def skip_doubles(session: Session, stays_id: int, goes_id: int) -> None:
    """Sends stay with the address they were made for; of two that wait or went out, the waiting one is left out."""
    for one, other in ((goes_id, stays_id), (stays_id, goes_id)):
        beside = aliased(Send)
        has_it = (
            select(beside.id)
            .where(beside.activity_id == Send.activity_id, beside.occasion == "", beside.contact_id == other)
            .where(beside.state.not_in(NEVER_SENT))
            .exists()
        )
        session.execute(
            update(Send)
            .where(Send.contact_id == one, Send.occasion == "", Send.state.in_(_NOT_SENT_YET), has_it)
            .values(state=SendState.SKIPPED, reason=SkipReason.MERGED, due_at=None),
            execution_options={"synchronize_session": False},
        )
