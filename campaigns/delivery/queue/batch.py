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
from campaigns.delivery.queue.results import SendResult, record_results
from campaigns.delivery.relays import reply_stats
from campaigns.delivery.smtp.replies import DeliveryResult, DeliveryStatus

_JOURNAL_STATUS = {
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

    payload: BatchPayload
    journal: BatchJournal
    lease: Lease
    waiting: deque[int] = field(default_factory=deque)
    """Positions not yet taken by a connection, in sending order."""
    in_flight: int = 0
    """Number of mails that a connection holds."""
    parked_count: int = 0
    """Number of mails parked in memory by a provider's rate limit."""
    disconnects: dict[int, int] = field(default_factory=dict)
    """Position → number of connections that ended while they held the untouched mail."""
    postponed: dict[datetime, list[int]] = field(default_factory=dict)
    """New due time → ids of sends that go back to the queue because their domain is rate limited or backed off."""
    revocable: set[int] = field(default_factory=set)
    """Positions whose last dot has not been sent, so that their mail can still be held back."""
    results: list[SendResult] = field(default_factory=list)

    @property
    def is_finished(self) -> bool:
        """Whether no mail waits, is in flight or is parked."""
        return not self.waiting and not self.in_flight and not self.parked_count

    def add_result(self, position: int, outcome: DeliveryResult) -> None:
        """Add the result of one mail. The journal is written first: it survives a kill of the process."""
        self.journal.set_status(position, _JOURNAL_STATUS[outcome.status])
        self.revocable.discard(position)
        self.results.append(SendResult(self.payload.sends[position], outcome, clock.now_micros()))

    def record(self) -> None:
        """Write the results to the database, release the other sends and delete the journal.

        A send without a result was not touched and keeps its due time, unless it was postponed.
        """
        recorded_ids = {result.send.id for result in self.results}
        untouched_ids = [send.id for send in self.payload.sends if send.id not in recorded_ids]
        with db.transaction() as session:
            record_results(session, self.journal.batch, self.results)
            reply_stats.count_replies(session, self.payload.context.activity.id, self.results)
            for due_at, ids in self.postponed.items():
                leases.release(session, self.journal.batch, ids, due_at)
            if untouched_ids:
                leases.release(session, self.journal.batch, untouched_ids)
        self.journal.delete()


def claim(activity_id: int, size: int, context: BatchContext | None = None) -> Batch | None:
    """Claim up to ``size`` due sends of the activity and load their payload; None when nothing is due.

    ``context`` is the one that earlier batches of the same run share. The claim is committed when this returns.
    """
    journal = BatchJournal.create()
    try:
        lease = Lease(journal.batch)
        with db.transaction() as session:
            _organisation = organisation(session)  # The identity map is weak: without this reference it is read again.
            rows = claims.claim(session, activity_id, journal.batch, size)
            batch_payload = payload.load(session, activity_id, rows, context) if rows else None
            if batch_payload is not None:
                link_cache.cache_links(session, batch_payload)
        if batch_payload is None:
            journal.delete()
            return None
        journal.write_ids([send.id for send in batch_payload.sends])
    except BaseException:
        journal.close()
        raise
    positions = range(len(rows))
    return Batch(batch_payload, journal, lease, deque(positions), revocable=set(positions))
