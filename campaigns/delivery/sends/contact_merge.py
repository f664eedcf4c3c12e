"""Contact merge step: skips the second send when both merged contacts are recipients of the same activity."""

from sqlalchemy import select, update
from sqlalchemy.orm import Session, aliased

from campaigns.delivery.models import NEVER_SENT, Send, SendState, SkipReason

_NOT_SENT_YET = (SendState.QUEUED, SendState.DEFERRED, SendState.HELD)


def skip_doubles(session: Session, stays_id: int, goes_id: int) -> None:
    """Skip unsent launch sends of one contact where the other has a send of the same activity that was or will be sent.

    Sends stay with the contact and address they were made for. When both sends are unsent, the duplicate's is skipped:
    its contact is processed first.
    """
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
