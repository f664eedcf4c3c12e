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
from campaigns.delivery.smtp.connection import FINAL_DOT_TIMEOUT
from campaigns.retries import JobType

LEASE = timedelta(seconds=FINAL_DOT_TIMEOUT + 300)
_LEASE_MICROS = LEASE // timedelta(microseconds=1)
_RENEW_BELOW = _LEASE_MICROS - 240_000_000


class Lease:
    """A worker's lease on one batch. A worker that cannot renew it must stop before the next final dot."""

    def __init__(self, batch: str) -> None:
        self.batch = batch
        self._expires_at = clock.now_micros() + _LEASE_MICROS

    def ensure_held(self) -> bool:
        """Renew the lease once four minutes of it have passed. Returns whether it is held."""
        return self._expires_at - clock.now_micros() > _RENEW_BELOW or self._renew()

    def _renew(self) -> bool:
        until = clock.now() + LEASE
        with db.transaction() as session:
            renewed_ids = session.scalars(
                update(Send)
                .where(Send.claimed_by == self.batch, Send.state == SendState.SENDING)
                .where(Send.lease_until > clock.now())
                .values(lease_until=until)
                .returning(Send.id)
                .execution_options(synchronize_session=False)
            ).all()
        if renewed_ids:
            self._expires_at = db.to_micros(until)
        return bool(renewed_ids)


def release(session: Session, batch: str, ids: Collection[int], due_at: datetime | None = None) -> None:
    """Return untouched sends of ``batch`` to the queue without counting an attempt.

    They keep their due time unless ``due_at`` is given.
    """
    new_due_time = {} if due_at is None else {"due_at": due_at}
    session.execute(
        update(Send)
        .where(db.in_ids(session, Send.id, ids), Send.claimed_by == batch, Send.state == SendState.SENDING)
        .values(state=SendState.QUEUED, claimed_by=None, lease_until=None, **new_due_time)
        .execution_options(synchronize_session=False)
    )


def take_over() -> int:
    """Give the sends of dead workers a state. Returns the number of sends.

    For batches of this host the journal shows the progress of each mail. They are taken over at once, because the lock
    of a dead owner is free. Batches without a journal on this host become unknown when their lease has expired. If
    their host comes back, its journal still corrects them.
    """
    recovered_counts: list[int] = []
    for orphan in journal.orphans():
        retries.run_one(JobType.RECOVER_BATCH, orphan.batch, partial(_recover_and_count, recovered_counts, orphan))
    return sum(recovered_counts) + _expire_leases()


def _recover_and_count(recovered_counts: list[int], orphan: journal.BatchJournal) -> None:
    recovered_counts.append(_recover(orphan))


_STATE_AFTER_RECOVERY: Mapping[JournalStatus, SendState] = {
    JournalStatus.TODO: SendState.QUEUED,
    JournalStatus.INTENT: SendState.UNKNOWN,
    JournalStatus.OK: SendState.SENT,
    # Not delivered, and the relay's reply is lost: try again.
    JournalStatus.REJECTED: SendState.QUEUED,
    JournalStatus.DEFERRED: SendState.QUEUED,
}


def _recover(orphan: journal.BatchJournal) -> int:
    statuses = orphan.statuses()
    with db.transaction() as session:
        unfinished_ids = _unfinished_ids(session, orphan.batch, list(statuses))
        for state in set(_STATE_AFTER_RECOVERY.values()):
            ids = [
                send_id
                for send_id in unfinished_ids
                if _STATE_AFTER_RECOVERY[statuses.get(send_id, JournalStatus.TODO)] is state
            ]
            _set_state(session, orphan.batch, ids, state)
    orphan.delete()
    return len(unfinished_ids)


def _unfinished_ids(session: Session, batch: str, ids: list[int]) -> list[int]:
    """Ids of the batch's sends without an outcome.

    These are the leased ones (read through the partial index of leased sends), and the journal's ids that became
    unknown when the lease expired before this host could take over.
    """
    leased = Send.lease_until.is_not(None), Send.state == SendState.SENDING
    expired = db.in_ids(session, Send.id, ids), Send.state == SendState.UNKNOWN
    return [
        send_id
        for conditions in (leased, expired)
        for send_id in session.scalars(select(Send.id).where(Send.claimed_by == batch, *conditions))
    ]


def _set_state(session: Session, batch: str, ids: list[int], state: SendState) -> None:
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
            .where(db.in_ids(session, Send.id, ids), Send.claimed_by == batch)
            .values(values)
            .execution_options(synchronize_session=False)
        )


def _expire_leases() -> int:
    """Set sends with an expired lease to unknown; returns their number.

    Batches of this host whose owner is alive are left out: the owner renews its lease or stops by itself.
    """
    overdue = Send.lease_until < clock.now(), Send.state == SendState.SENDING
    with db.read_only_session() as session:
        batches = set(session.scalars(select(Send.claimed_by).where(*overdue).distinct())) - journal.live_batches()
    if not batches:
        return 0
    with db.transaction() as session:
        expired_ids = session.scalars(
            update(Send)
            .where(*overdue, or_(Send.claimed_by.in_(batches - {None}), Send.claimed_by.is_(None)))
            .values(state=SendState.UNKNOWN, lease_until=None, due_at=None)
            .returning(Send.id)
            .execution_options(synchronize_session=False)
        ).all()
    return len(expired_ids)
