"""Erasure step for lead notifications in the outbox. Submissions are deleted with the contact by the database."""

from sqlalchemy import select
from sqlalchemy.orm import Session

from campaigns.outbox import OutboxMail

_PERSONAL_KEYS = ("name", "email")


def erase_lead_notifications(session: Session, _contact_id: int, address: str) -> None:
    """Remove name and address from lead notifications; delete those not sent yet."""
    notifications = select(OutboxMail).where(
        OutboxMail.kind == "new_lead", OutboxMail.context["email"].as_string() == address
    )
    for mail in session.scalars(notifications):
        if mail.sent_at is None:
            session.delete(mail)
        else:
            mail.context = {**mail.context, **dict.fromkeys(_PERSONAL_KEYS, "")}
