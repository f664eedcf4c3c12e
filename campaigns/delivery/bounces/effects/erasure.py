"""Erasure of a contact's address from bounce data; the feedback rows stay as counts."""

from sqlalchemy import or_, select, update
from sqlalchemy.orm import Session

from campaigns.delivery.bounces.models import Feedback, InboundMessage
from campaigns.delivery.models import ERASED, Send


def forget_feedback(session: Session, contact_id: int, address: str) -> None:
    """Remove the address and diagnostic from the contact's feedback, and empty inbound messages that name it."""
    theirs = select(Send.id).where(Send.contact_id == contact_id)
    session.execute(
        update(Feedback)
        .where(or_(Feedback.send_id.in_(theirs), Feedback.address == address))
        .values(address=ERASED, diagnostic="")
        .execution_options(synchronize_session="fetch")
    )
    named = address.lower().encode()
    for kept in session.scalars(
        select(InboundMessage).where(InboundMessage.raw.is_not(None), InboundMessage.feedback_type.is_not(None))
    ):
        if named in (kept.raw or b"").lower() or kept.recipient == address:
            kept.raw, kept.diagnostic, kept.recipient = None, "", ""
