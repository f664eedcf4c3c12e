"""An erased person's bounces stay as counts; what they say of the address goes."""

from sqlalchemy import or_, select, update
from sqlalchemy.orm import Session

from campaigns.delivery.bounces.models import Feedback, InboundMessage
from campaigns.delivery.models import ERASED, Send


def forget_feedback(session: Session, contact_id: int, address: str) -> None:
    """Take the address off what came back about the contact's mails, and off what waits for a look."""
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
