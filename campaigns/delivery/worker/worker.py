"""Sending worker: claims batches, sends them, and records the results until its time is over.

This module owns its transactions: a claim is committed before any byte is sent, and no transaction is open during SMTP.
The next batch is claimed and the previous one recorded in threads while mails are in flight.
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
"""Seconds that one call works, so that other tasks get their turn. The tick enqueues one call a second per activity, so
an activity occupies at most three workers."""
_SLICE = 2.0  # Seconds of sending that one claim is sized for.
_FIRST = 100
_SMALLEST = 20
_BOUNCES = (DeliveryStatus.NO_SUCH_RECIPIENT, DeliveryStatus.REJECTED)
_WAKE = 0.2  # Seconds after which the loop runs without a wake-up, in case one was missed.


def deliver(activity_id: int, seconds: float = SHIFT) -> int:
    """Send the due mails of an activity for about ``seconds``. Returns the number of mails with a result.

    May run repeatedly and concurrently.
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
        """Whether nothing was claimed yet. The first claim ignores the deadline, for a process that was suspended."""
        self._claiming: asyncio.Task[None] | None = None
        self._recording: set[asyncio.Task[None]] = set()
        self._unrecorded: list[Batch] = []
        self._harmful = False
        self._error: BaseException | None = None

    async def work(self) -> int:
        asyncio.get_running_loop().set_exception_handler(self._fault)
        try:
            if await self._lanes.begin():  # The run's time begins once a relay has answered.
                self._began = time.monotonic()
                self._deadline = self._began + self._seconds
                await self._turn()
        finally:
            try:
                await self._lanes.close()
            finally:  # Without this the process would keep the journals' locks when the database is unavailable.
                for batch in (*self._supply.batches, *self._unrecorded):
                    batch.journal.close()  # A take-over reads unrecorded results from the journal.
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
        """Handler of exceptions in the event loop's callbacks: the run ends after the mails in flight have ended."""
        error = context.get("exception")
        self._error = self._error or (error if isinstance(error, BaseException) else RuntimeError(str(context)))
        self._changed.set()
