"""A slice from claim to record: who of it waits, who is on the way, and what became of the others."""

from collections import deque
from dataclasses import dataclass, field
from datetime import datetime

from campaigns import clock, db
from campaigns.accounts.organisation import organisation
from campaigns.delivery.queue import claims, leases, link_cache, payload
from campaigns.delivery.queue.journal import BatchJournal, JournalStatus
from campaigns.delivery.queue.leases import Lease
from campaigns.delivery.queue.payload import BatchContext, BatchPayload
from campaigns.delivery.queue.results import SendResult, record
from campaigns.delivery.relays import reply_stats
from campaigns.delivery.smtp.replies import DeliveryResult, DeliveryStatus

_MARKS = {
    DeliveryStatus.SENT: JournalStatus.OK,
    DeliveryStatus.NO_SUCH_RECIPIENT: JournalStatus.REJECTED,
    DeliveryStatus.REJECTED: JournalStatus.REJECTED,
    DeliveryStatus.SENDER_REJECTED: JournalStatus.REJECTED,
    DeliveryStatus.DEFERRED: JournalStatus.DEFERRED,
    DeliveryStatus.CONNECTION_LOST: JournalStatus.DEFERRED,
    DeliveryStatus.NOT_COMPOSABLE: JournalStatus.REJECTED,
    DeliveryStatus.UNKNOWN: JournalStatus.INTENT,
}


@dataclass(slots=True, eq=False)
class Batch:
    """A claimed slice with its journal. Positions count its letters."""

    claimed: BatchPayload
    journal: BatchJournal
    lease: Lease
    waiting: deque[int] = field(default_factory=deque)
    out: int = 0
    """How many are on the way."""
    aside: int = 0
    """How many stand aside for their provider's sake."""
    returns: dict[int, int] = field(default_factory=dict)
    """How often a connection ended under whom before the mail was touched."""
    parked: dict[datetime, list[int]] = field(default_factory=dict)
    """Ids of sends whose domain is to be left alone, by when they are due again."""
    touchable: set[int] = field(default_factory=set)
    """Positions of those whose mail can still be held back."""
    results: list[SendResult] = field(default_factory=list)

    @property
    def over(self) -> bool:
        return not self.waiting and not self.out and not self.aside

    def note(self, position: int, outcome: DeliveryResult) -> None:
        """Keep what became of one of them, first where a killed process can't lose it."""
        self.journal.mark(position, _MARKS[outcome.status])
        self.touchable.discard(position)
        self.results.append(SendResult(self.claimed.sends[position], outcome, clock.micros()))

    def record(self) -> None:
        """Write the results down; whoever has none was not touched and is as due as before."""
        known = {result.send.id for result in self.results}
        left = [send.id for send in self.claimed.sends if send.id not in known]
        with db.transaction() as session:
            record(session, self.journal.batch, self.results)
            reply_stats.note(session, self.claimed.press.activity.id, self.results)
            for due_at, ids in self.parked.items():
                leases.release(session, self.journal.batch, ids, due_at)
            if left:
                leases.release(session, self.journal.batch, left)
        self.journal.delete()


def claim(activity_id: int, size: int, press: BatchContext | None = None) -> Batch | None:
    """Up to ``size`` due sends of the activity, printed on ``press`` when the shift has one already; None when nothing
    is due. The claim is committed."""
    journal = BatchJournal.create()
    try:
        lease = Lease(journal.batch)
        with db.transaction() as session:
            _house = organisation(session)  # Held, since a session forgets what nobody holds and asks again.
            rows = claims.claim(session, activity_id, journal.batch, size)
            claimed = payload.load(session, activity_id, rows, press) if rows else None
            if claimed is not None:
                link_cache.put_up(session, claimed)
        if claimed is None:
            journal.delete()
            return None
        journal.begin([send.id for send in claimed.sends])
    except BaseException:
        journal.close()
        raise
    everybody = range(len(rows))
    return Batch(claimed, journal, lease, deque(everybody), touchable=set(everybody))
