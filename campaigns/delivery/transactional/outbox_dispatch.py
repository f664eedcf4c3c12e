"""Outbox dispatch: mail that lower packages left in the outbox becomes sends of the built-in activity "system"."""

from sqlalchemy import exists, select
from sqlalchemy.orm import Session

from campaigns import clock, retries
from campaigns.delivery.models import Send
from campaigns.delivery.transactional import enqueue
from campaigns.outbox import OutboxMail
from campaigns.retries import JobType

_AT_ONCE = 500


def waiting(session: Session) -> bool:
    """Whether the outbox holds mail that is not queued yet."""
    return bool(session.scalar(select(exists().where(OutboxMail.sent_at.is_(None)))))


def post_outbox(session: Session) -> list[Send]:
    """Queue the waiting mails of the outbox, each once, at most 500 per call. Failing ones are backed off."""
    later = [int(subject) for subject in retries.put_off(session, JobType.QUEUE_SYSTEM_MAIL)]
    mails = session.scalars(
        select(OutboxMail.id)
        .where(OutboxMail.sent_at.is_(None), OutboxMail.id.not_in(later))
        .order_by(OutboxMail.id)
        .limit(_AT_ONCE)
        .with_for_update(skip_locked=True)
    ).all()
    return retries.carry(
        session, JobType.QUEUE_SYSTEM_MAIL, mails, lambda ids: [_posted(session, mail_id) for mail_id in ids]
    )


def _posted(session: Session, mail_id: int) -> Send:
    mail = session.get_one(OutboxMail, mail_id)
    mail.sent_at = clock.now()
    return enqueue.add(session, "system", mail.address, f"outbox:{mail.id}", outbox_id=mail.id)
