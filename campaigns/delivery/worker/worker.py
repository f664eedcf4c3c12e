"""Claim a slice, send it, write down what became of it; again until the time is over.

This file owns its transactions: the claim is committed before any byte leaves, and no
transaction is open while the relay talks. The next slice is claimed and the last one recorded
while mails are on the wire.
"""

import asyncio
import time
from collections.abc import Coroutine, Mapping

from campaigns import db
from campaigns.delivery.bounces.effects import circuit_breaker
from campaigns.delivery.queue import batch as queue_batch
from campaigns.delivery.queue import claims, scheduler
from campaigns.delivery.queue.batch import Batch
from campaigns.delivery.queue.payload import BatchContext
from campaigns.delivery.relays import availability
from campaigns.delivery.smtp.address import RelayAddress
from campaigns.delivery.smtp.replies import DeliveryStatus
from campaigns.delivery.worker import provider_pacing
from campaigns.delivery.worker.connection_pool import RelayPools
from campaigns.delivery.worker.mail_feed import MailFeed
from campaigns.delivery.worker.provider_pacing import HOLD, ProviderPacer

SHIFT = 3.0
"""Seconds that one call works, so that other tasks get their turn. The tick sends for more, one call
a second, so an activity keeps at most three workers busy."""
_SLICE = 2.0  # seconds of work to claim at once
_FIRST = 100
_SMALLEST = 20
_BOUNCES = (DeliveryStatus.NO_SUCH_RECIPIENT, DeliveryStatus.REJECTED)
_WAKE = 0.2  # seconds; a net under the wake-ups


def deliver(activity_id: int, seconds: float = SHIFT) -> int:
    """Send what is due of an activity for about ``seconds``; how many mails had an outcome.

    Safe to run as often and as many at once as one likes.
    """
    with db.reading() as session:
        addresses = availability.usable(session)
        limits = {} if scheduler.built_in(session, [activity_id]) else provider_pacing.limited(session)
    return asyncio.run(_SendRun(activity_id, seconds, addresses, limits).work()) if addresses else 0


class _SendRun:
    """One call of :func:`deliver`."""

    def __init__(
        self, activity_id: int, seconds: float, addresses: list[RelayAddress], limits: Mapping[str, ProviderPacer]
    ) -> None:
        self._activity_id = activity_id
        self._seconds = seconds
        self._began = self._deadline = 0.0
        self._changed = asyncio.Event()
        self._supply = MailFeed(activity_id, self._changed.set, limits)
        self._lanes = RelayPools(addresses, self._supply, self._changed.set)
        self._size = _FIRST
        self._press: BatchContext | None = None
        self._done = 0
        self._dry = False
        self._fresh = True
        """Whether it has claimed nothing yet: a process that was stopped for so long still sends something."""
        self._claiming: asyncio.Task[None] | None = None
        self._recording: set[asyncio.Task[None]] = set()
        self._unrecorded: list[Batch] = []
        self._harmful = False
        self._error: BaseException | None = None

    async def work(self) -> int:
        asyncio.get_running_loop().set_exception_handler(self._fault)
        try:
            if await self._lanes.begin():  # Slow relays cost a shift no mails: its time begins here.
                self._began = time.monotonic()
                self._deadline = self._began + self._seconds
                await self._turn()
        finally:
            try:
                await self._lanes.close()
            finally:  # Whoever kept a journal's lock while the database is away would keep it for as long as it lives.
                for batch in (*self._supply.batches, *self._unrecorded):
                    batch.journal.close()  # What is not recorded now, the journal tells later.
        if self._error is not None:
            raise self._error
        return self._done

    async def _turn(self) -> None:
        while True:
            self._changed.clear()
            if self._error is not None or self._harmful or not self._lanes.open:
                self._supply.stop()
            if time.monotonic() > self._deadline + 2 * HOLD:
                self._supply.set_down()
            self._record_finished()
            self._claim_ahead()
            self._lanes.tend()
            if self._over():
                return
            try:
                async with asyncio.timeout(_WAKE):
                    await self._changed.wait()
            except TimeoutError:
                continue

    def _over(self) -> bool:
        if self._claiming is not None or self._recording:
            return False
        if self._error is not None:
            return not self._lanes.busy
        return not self._supply.batches

    def _claim_ahead(self) -> None:
        supply = self._supply
        if (
            self._claiming is None
            and not self._dry
            and not supply.stopped
            and supply.waiting <= supply.low
            and (self._fresh or time.monotonic() < self._deadline)
        ):
            self._fresh = False
            self._claiming = self._begin(self._claim())

    async def _claim(self) -> None:
        try:
            batch = await asyncio.to_thread(queue_batch.claim, self._activity_id, self._size, self._press)
            self._dry = batch is None
            if batch is not None:
                self._press = batch.claimed.press
                self._supply.low = len(batch.waiting) // 2
                self._supply.add(batch)
        finally:
            self._claiming = None

    def _record_finished(self) -> None:
        for batch in [batch for batch in self._supply.batches if batch.over]:
            self._supply.batches.remove(batch)
            self._done += len(batch.results)
            rate = max(self._done, 1) / max(time.monotonic() - self._began, 1e-3)
            self._size = max(_SMALLEST, min(claims.LARGEST, int(rate * _SLICE)))
            self._unrecorded.append(batch)
            self._recording.add(self._begin(self._record(batch)))

    async def _record(self, batch: Batch) -> None:
        await asyncio.to_thread(batch.record)
        self._unrecorded.remove(batch)
        bounced = sum(result.outcome.status in _BOUNCES for result in batch.results)
        if bounced > len(batch.results) * circuit_breaker.BOUNCES:
            await asyncio.to_thread(self._trip)

    def _trip(self) -> None:
        with db.transaction() as session:
            if circuit_breaker.pause_if_harmful(session, self._activity_id):
                self._harmful = True

    def _begin(self, work: Coroutine[None, None, None]) -> asyncio.Task[None]:
        task = asyncio.get_running_loop().create_task(work)
        task.add_done_callback(self._ended)
        return task

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._recording.discard(task)
        if not task.cancelled() and task.exception() is not None:
            self._error = self._error or task.exception()
        self._changed.set()

    def _fault(self, _loop: object, context: dict[str, object]) -> None:
        """An error of ours in the middle of a connection ends the shift; first the mails under way end."""
        error = context.get("exception")
        self._error = self._error or (error if isinstance(error, BaseException) else RuntimeError(str(context)))
        self._changed.set()
