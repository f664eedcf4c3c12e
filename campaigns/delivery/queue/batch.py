"""One claimed batch of sends, from its claim to the record of its results.

A batch keeps in memory which of its mails wait, which are in flight and which have a result; its journal on disk keeps
the same for a process that is killed.
"""

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
    """A claimed batch with its journal. A position is the index of a send in ``payload.sends``."""

    claimed: BatchPayload
    journal: BatchJournal
    lease: Lease
    waiting: deque[int] = field(default_factory=deque)
    """Positions not yet taken by a connection, in sending order."""
    out: int = 0
    """Number of mails that a connection holds."""
    aside: int = 0
    """Number of mails parked in memory by a provider's rate limit."""
    returns: dict[int, int] = field(default_factory=dict)
    """Position → number of connections that ended while they held the untouched mail."""
    parked: dict[datetime, list[int]] = field(default_factory=dict)
    """New due time → ids of sends that go back to the queue because their domain is rate limited or backed off."""
    touchable: set[int] = field(default_factory=set)
    """Positions whose last dot has not been sent, so that their mail can still be held back."""
    results: list[SendResult] = field(default_factory=list)

    @property
    def over(self) -> bool:
        """Whether no mail waits, is in flight or is parked."""
        return not self.waiting and not self.out and not self.aside

    def note(self, position: int, outcome: DeliveryResult) -> None:
        """Add the result of one mail. The journal is written first: it survives a kill of the process."""
        self.journal.mark(position, _MARKS[outcome.status])
        self.touchable.discard(position)
        self.results.append(SendResult(self.claimed.sends[position], outcome, clock.micros()))

    def record(self) -> None:
        """Write the results to the database, release the other sends and delete the journal.

        A send without a result was not touched and keeps its due time, unless it was postponed.
        """
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
    """Claim up to ``size`` due sends of the activity and load their payload; None when nothing is due.

    ``context`` is the one that earlier batches of the same run share. The claim is committed when this returns.
    """
    journal = BatchJournal.create()
    try:
        lease = Lease(journal.batch)
        with db.transaction() as session:
            _house = organisation(session)  # The identity map is weak: without this reference it is read again.
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
