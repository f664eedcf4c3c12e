"""Erasure of a contact's address from bounce data; the feedback rows stay as counts."""

from sqlalchemy import or_, select, update
from sqlalchemy.orm import Session

from campaigns.delivery.bounces.models import Feedback, InboundMessage
from campaigns.delivery.models import ERASED_ADDRESS, Send


def erase_feedback(session: Session, contact_id: int, address: str) -> None:
    """Remove the address and diagnostic from the contact's feedback, and empty inbound messages that name it."""
    own_sends = select(Send.id).where(Send.contact_id == contact_id)
    session.execute(
        update(Feedback)
        .where(or_(Feedback.send_id.in_(own_sends), Feedback.address == address))
        .values(address=ERASED_ADDRESS, diagnostic="")
        .execution_options(synchronize_session="fetch")
    )
    address_bytes = address.lower().encode()
    for message in session.scalars(
        select(InboundMessage).where(InboundMessage.raw.is_not(None), InboundMessage.feedback_type.is_not(None))
    ):
        if address_bytes in (message.raw or b"").lower() or message.recipient == address:
            message.raw, message.diagnostic, message.recipient = None, "", ""
