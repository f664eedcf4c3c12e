"""Contact merge step: skips the second send when both merged contacts are recipients of the same activity."""

from sqlalchemy import select, update
from sqlalchemy.orm import Session, aliased

from campaigns.delivery.models import NEVER_SENT_STATES, Send, SendState, SkipReason

_UNSENT = (SendState.QUEUED, SendState.DEFERRED, SendState.HELD)


def skip_duplicate_sends(session: Session, survivor_id: int, duplicate_id: int) -> None:
    """Skip unsent launch sends of one contact where the other has a send of the same activity that was or will be sent.

    Sends stay with the contact and address they were made for. When both sends are unsent, the duplicate's is skipped:
    its contact is processed first.
    """
    for contact_id, other_id in ((duplicate_id, survivor_id), (survivor_id, duplicate_id)):
        other_send = aliased(Send)
        other_has_it = (
            select(other_send.id)
            .where(
                other_send.activity_id == Send.activity_id, other_send.occasion == "", other_send.contact_id == other_id
            )
            .where(other_send.state.not_in(NEVER_SENT_STATES))
            .exists()
        )
        session.execute(
            update(Send)
            .where(Send.contact_id == contact_id, Send.occasion == "", Send.state.in_(_UNSENT), other_has_it)
            .values(state=SendState.SKIPPED, reason=SkipReason.MERGED, due_at=None),
            execution_options={"synchronize_session": False},
        )
