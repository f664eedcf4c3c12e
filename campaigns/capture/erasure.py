"""An erased person's answers go with the contact; the mail that told of a new lead names nobody any more."""

from sqlalchemy import select
from sqlalchemy.orm import Session

from campaigns.outbox import OutboxMail

_NAMING = ("name", "email")


def forget_lead(session: Session, _contact_id: int, address: str) -> None:
    """Take name and address out of the mails to leads' owners; one that nobody has taken yet is not sent."""
    told = select(OutboxMail).where(OutboxMail.kind == "new_lead", OutboxMail.context["email"].as_string() == address)
    for mail in session.scalars(told):
        if mail.sent_at is None:
            session.delete(mail)
        else:
            mail.context = {**mail.context, **dict.fromkeys(_NAMING, "")}
