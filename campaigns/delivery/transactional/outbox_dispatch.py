"""Outbox dispatch: mail that lower packages left in the outbox becomes sends of the built-in activity "system"."""

from sqlalchemy import exists, select
from sqlalchemy.orm import Session

from campaigns import clock, retries
from campaigns.delivery.models import Send
from campaigns.delivery.transactional import enqueue
from campaigns.outbox import OutboxMail
from campaigns.retries import JobType

_BATCH_SIZE = 500


def has_waiting_mail(session: Session) -> bool:
    """Whether the outbox holds mail that is not queued yet."""
    return bool(session.scalar(select(exists().where(OutboxMail.sent_at.is_(None)))))


def queue_outbox_mail(session: Session) -> list[Send]:
    """Queue the waiting mails of the outbox, each once, at most 500 per call. Failing ones are backed off."""
    backed_off = [int(subject) for subject in retries.backed_off_subjects(session, JobType.QUEUE_SYSTEM_MAIL)]
    mail_ids = session.scalars(
        select(OutboxMail.id)
        .where(OutboxMail.sent_at.is_(None), OutboxMail.id.not_in(backed_off))
        .order_by(OutboxMail.id)
        .limit(_BATCH_SIZE)
        .with_for_update(skip_locked=True)
    ).all()
    return retries.run_batch(
        session, JobType.QUEUE_SYSTEM_MAIL, mail_ids, lambda ids: [_queue_mail(session, mail_id) for mail_id in ids]
    )


def _queue_mail(session: Session, mail_id: int) -> Send:
    mail = session.get_one(OutboxMail, mail_id)
    mail.sent_at = clock.now()
    return enqueue.enqueue_send(session, "system", mail.address, f"outbox:{mail.id}", outbox_id=mail.id)
