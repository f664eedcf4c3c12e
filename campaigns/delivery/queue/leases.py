"""How long a claim holds, and what becomes of the sends whose worker died.

A lease outlasts the longest wait for a relay's last answer, so whoever takes over never races a mail
that may still go out.
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
    """The worker's side of a claim: renewed in time, or the worker must stop before the next dot."""

    def __init__(self, batch: str) -> None:
        self.batch = batch
        self._until = clock.micros() + _MICROS

    def hold(self) -> bool:
        """Whether the next mail may go out under this lease."""
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
    """Give untouched sends back; they are as due as they were, or due at ``due_at``, and have used no attempt."""
    later = {} if due_at is None else {"due_at": due_at}
    session.execute(
        update(Send)
        .where(db.among(session, Send.id, ids), Send.claimed_by == batch, Send.state == SendState.SENDING)
        .values(state=SendState.QUEUED, claimed_by=None, lease_until=None, **later)
        .execution_options(synchronize_session=False)
    )


def take_over() -> int:
    """Settle what dead workers left behind; how many sends that were.

    This host's journal says exactly how far each mail got, and at once, since a dead owner's lock
    is free. Of batches without a journal here nothing is known: when their lease has run out
    they become unknown. Should their host come back, its journal still corrects that.
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
    # Not mailed, and what the relay said is lost: ask it again.
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
    """The batch's sends without an outcome: those under lease (few, by its index), and those of the
    journal whose lease ran out while nobody could read it."""
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
    """Leases that ran out, of hosts we can't ask. A living batch of ours renews or stops by itself."""
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
