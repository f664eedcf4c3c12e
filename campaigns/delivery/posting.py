"""Mail that lower rooms left in the outbox becomes sends of the built-in activity "system"."""

from sqlalchemy import exists, select
from sqlalchemy.orm import Session

from campaigns import clock
from campaigns.delivery import single
from campaigns.delivery.models import Send
from campaigns.outbox import OutboxMail

_AT_ONCE = 500


def waiting(session: Session) -> bool:
    """Whether the outbox holds mail that nobody has taken."""
    return bool(session.scalar(select(exists().where(OutboxMail.sent_at.is_(None)))))


def post_outbox(session: Session) -> list[Send]:
    """Queue the outbox's mail, each piece once."""
    mails = session.scalars(
        select(OutboxMail).where(OutboxMail.sent_at.is_(None)).order_by(OutboxMail.id).limit(_AT_ONCE)
        .with_for_update(skip_locked=True)
    ).all()  # fmt: skip
    sends = []
    for mail in mails:
        sends.append(single.add(session, "system", mail.address, f"outbox:{mail.id}", outbox_id=mail.id))
        mail.sent_at = clock.now()
    return sends
