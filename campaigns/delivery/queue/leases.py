"""Leases of claimed sends: renewal, release, and take-over of a dead worker's sends.

A lease is longer than the timeout for the reply to the final dot (RFC 5321, 4.5.3.2: ten minutes), so a take-over never
races with a mail that may still be delivered.
"""

from collections.abc import Collection, Mapping
from datetime import datetime, timedelta
from functools import partial

from sqlalchemy import or_, select, update
from sqlalchemy.orm import Session

from campaigns import clock, db, retries
from campaigns.delivery.models import Send, SendState
from campaigns.delivery.queue import journal
from campaigns.delivery.queue.journal import JournalStatus
from campaigns.delivery.smtp.connection import FINAL_DOT
from campaigns.retries import JobType

LEASE = timedelta(seconds=FINAL_DOT + 300)
_MICROS = LEASE // timedelta(microseconds=1)
_RENEW_BELOW = _MICROS - 240_000_000


class Lease:
    """A worker's lease on one batch. A worker that cannot renew it must stop before the next final dot."""

    def __init__(self, batch: str) -> None:
        self.batch = batch
        self._until = clock.micros() + _MICROS

    def hold(self) -> bool:
        """Renew the lease once four minutes of it have passed. Returns whether it is held."""
        return self._until - clock.micros() > _RENEW_BELOW or self._renew()

    def _renew(self) -> bool:
        until = clock.now() + LEASE
        with db.transaction() as session:
            held = session.scalars(
                update(Send)
                .where(Send.claimed_by == self.batch, Send.state == SendState.SENDING)
                .where(Send.lease_until > clock.now())
                .values(lease_until=until)
                .returning(Send.id)
                .execution_options(synchronize_session=False)
            ).all()
        if held:
            self._until = db.to_micros(until)
        return bool(held)


def release(session: Session, batch: str, ids: Collection[int], due_at: datetime | None = None) -> None:
    """Return untouched sends of ``batch`` to the queue without counting an attempt.

    They keep their due time unless ``due_at`` is given.
    """
    later = {} if due_at is None else {"due_at": due_at}
    session.execute(
        update(Send)
        .where(db.among(session, Send.id, ids), Send.claimed_by == batch, Send.state == SendState.SENDING)
        .values(state=SendState.QUEUED, claimed_by=None, lease_until=None, **later)
        .execution_options(synchronize_session=False)
    )


def take_over() -> int:
    """Give the sends of dead workers a state. Returns the number of sends.

    For batches of this host the journal shows the progress of each mail. They are taken over at once, because the lock
    of a dead owner is free. Batches without a journal on this host become unknown when their lease has expired. If
    their host comes back, its journal still corrects them.
    """
    settled: list[int] = []
    for orphan in journal.orphans():
        retries.alone(JobType.RECOVER_BATCH, orphan.batch, partial(_settle_into, settled, orphan))
    return sum(settled) + _expire()


def _settle_into(settled: list[int], orphan: journal.BatchJournal) -> None:
    settled.append(_settle(orphan))


_AFTERWARDS: Mapping[JournalStatus, SendState] = {
    JournalStatus.TODO: SendState.QUEUED,
    JournalStatus.INTENT: SendState.UNKNOWN,
    JournalStatus.OK: SendState.SENT,
    # Not delivered, and the relay's reply is lost: try again.
    JournalStatus.REJECTED: SendState.QUEUED,
    JournalStatus.DEFERRED: SendState.QUEUED,
}


def _settle(orphan: journal.BatchJournal) -> int:
    marks = orphan.marks()
    with db.transaction() as session:
        left = _left(session, orphan.batch, list(marks))
        for state in set(_AFTERWARDS.values()):
            ids = [send_id for send_id in left if _AFTERWARDS[marks.get(send_id, JournalStatus.TODO)] is state]
            _assign(session, orphan.batch, ids, state)
    orphan.delete()
    return len(left)


def _left(session: Session, batch: str, ids: list[int]) -> list[int]:
    """Ids of the batch's sends without an outcome.

    These are the leased ones (read through the partial index of leased sends), and the journal's ids that became
    unknown when the lease expired before this host could take over.
    """
    leased = Send.lease_until.is_not(None), Send.state == SendState.SENDING
    expired = db.among(session, Send.id, ids), Send.state == SendState.UNKNOWN
    return [
        send_id
        for which in (leased, expired)
        for send_id in session.scalars(select(Send.id).where(Send.claimed_by == batch, *which))
    ]


def _assign(session: Session, batch: str, ids: list[int], state: SendState) -> None:
    values: dict[str, object] = {"state": state, "lease_until": None}
    if state is SendState.QUEUED:
        values |= {"claimed_by": None}
    elif state is SendState.SENT:
        values |= {"sent_at": clock.now(), "due_at": None, "reply": "250 (from the journal)"}
    else:
        values |= {"due_at": None, "reply": ""}
    if ids:
        session.execute(
            update(Send)
            .where(db.among(session, Send.id, ids), Send.claimed_by == batch)
            .values(values)
            .execution_options(synchronize_session=False)
        )


def _expire() -> int:
    """Set sends with an expired lease to unknown; returns their number.

    Batches of this host whose owner is alive are left out: the owner renews its lease or stops by itself.
    """
    overdue = Send.lease_until < clock.now(), Send.state == SendState.SENDING
    with db.reading() as session:
        batches = set(session.scalars(select(Send.claimed_by).where(*overdue).distinct())) - journal.living()
    if not batches:
        return 0
    with db.transaction() as session:
        lost = session.scalars(
            update(Send)
            .where(*overdue, or_(Send.claimed_by.in_(batches - {None}), Send.claimed_by.is_(None)))
            .values(state=SendState.UNKNOWN, lease_until=None, due_at=None)
            .returning(Send.id)
            .execution_options(synchronize_session=False)
        ).all()
    return len(lost)
