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
from campaigns.delivery.worker.provider_pacing import PARKED_SECONDS, ProviderPacer

RUN_SECONDS = 3.0
"""Seconds that one call works, so that other tasks get their turn. The tick enqueues one call a second per activity, so
an activity occupies at most three workers."""
_BATCH_SECONDS = 2.0  # Seconds of sending that one claim is sized for.
_FIRST_BATCH = 100
_MIN_BATCH = 20
_BOUNCES = (DeliveryStatus.NO_SUCH_RECIPIENT, DeliveryStatus.REJECTED)
_MAX_WAIT = 0.2  # Seconds after which the loop runs without a wake-up, in case one was missed.


def deliver(activity_id: int, seconds: float = RUN_SECONDS) -> int:
    """Send the due mails of an activity for about ``seconds``. Returns the number of mails with a result.

    May run repeatedly and concurrently.
    """
    with db.read_only_session() as session:
        addresses = availability.usable_relays(session)
        limits = {} if scheduler.filter_built_in(session, [activity_id]) else provider_pacing.pacers_by_domain(session)
    return asyncio.run(_SendRun(activity_id, seconds, addresses, limits).run()) if addresses else 0


class _SendRun:
    """One call of :func:`deliver`."""

    def __init__(
        self, activity_id: int, seconds: float, addresses: list[RelayAddress], limits: Mapping[str, ProviderPacer]
    ) -> None:
        self._activity_id = activity_id
        self._seconds = seconds
        self._started_at = self._deadline = 0.0
        self._wake_up = asyncio.Event()
        self._feed = MailFeed(activity_id, self._wake_up.set, limits)
        self._pools = RelayPools(addresses, self._feed, self._wake_up.set)
        self._batch_size = _FIRST_BATCH
        self._context: BatchContext | None = None
        self._done_count = 0
        self._nothing_due = False
        self._is_first_claim = True
        """Whether nothing was claimed yet. The first claim ignores the deadline, for a process that was suspended."""
        self._claim_task: asyncio.Task[None] | None = None
        self._record_tasks: set[asyncio.Task[None]] = set()
        self._unrecorded: list[Batch] = []
        self._breaker_tripped = False
        self._error: BaseException | None = None

    async def run(self) -> int:
        asyncio.get_running_loop().set_exception_handler(self._loop_failed)
        try:
            if await self._pools.connect():  # The run's time begins once a relay has answered.
                self._started_at = time.monotonic()
                self._deadline = self._started_at + self._seconds
                await self._loop()
        finally:
            try:
                await self._pools.close()
            finally:  # Without this the process would keep the journals' locks when the database is unavailable.
                for batch in (*self._feed.batches, *self._unrecorded):
                    batch.journal.close()  # A take-over reads unrecorded results from the journal.
        if self._error is not None:
            raise self._error
        return self._done_count

    async def _loop(self) -> None:
        while True:
            self._wake_up.clear()
            if self._error is not None or self._breaker_tripped or not self._pools.usable_pools:
                self._feed.stop()
            if time.monotonic() > self._deadline + 2 * PARKED_SECONDS:
                self._feed.requeue_parked()
            self._record_finished()
            self._claim_ahead()
            self._pools.maintain()
            if self._is_finished():
                return
            try:
                async with asyncio.timeout(_MAX_WAIT):
                    await self._wake_up.wait()
            except TimeoutError:
                continue

    def _is_finished(self) -> bool:
        if self._claim_task is not None or self._record_tasks:
            return False
        if self._error is not None:
            return not self._pools.is_busy
        return not self._feed.batches

    def _claim_ahead(self) -> None:
        feed = self._feed
        if (
            self._claim_task is None
            and not self._nothing_due
            and not feed.stopped
            and feed.waiting <= feed.low_water
            and (self._is_first_claim or time.monotonic() < self._deadline)
        ):
            self._is_first_claim = False
            self._claim_task = self._start_task(self._claim())

    async def _claim(self) -> None:
        try:
            batch = await asyncio.to_thread(queue_batch.claim, self._activity_id, self._batch_size, self._context)
            self._nothing_due = batch is None
            if batch is not None:
                self._context = batch.payload.context
                self._feed.low_water = len(batch.waiting) // 2
                self._feed.add(batch)
        finally:
            self._claim_task = None

    def _record_finished(self) -> None:
        for batch in [batch for batch in self._feed.batches if batch.is_finished]:
            self._feed.batches.remove(batch)
            self._done_count += len(batch.results)
            rate = max(self._done_count, 1) / max(time.monotonic() - self._started_at, 1e-3)
            self._batch_size = max(_MIN_BATCH, min(claims.MAX_BATCH, int(rate * _BATCH_SECONDS)))
            self._unrecorded.append(batch)
            self._record_tasks.add(self._start_task(self._record(batch)))

    async def _record(self, batch: Batch) -> None:
        await asyncio.to_thread(batch.record)
        self._unrecorded.remove(batch)
        bounced = sum(result.outcome.status in _BOUNCES for result in batch.results)
        if bounced > len(batch.results) * circuit_breaker.MAX_BOUNCE_RATE:
            await asyncio.to_thread(self._check_circuit_breaker)

    def _check_circuit_breaker(self) -> None:
        with db.transaction() as session:
            if circuit_breaker.pause_if_harmful(session, self._activity_id):
                self._breaker_tripped = True

    def _start_task(self, coroutine: Coroutine[None, None, None]) -> asyncio.Task[None]:
        task = asyncio.get_running_loop().create_task(coroutine)
        task.add_done_callback(self._task_ended)
        return task

    def _task_ended(self, task: asyncio.Task[None]) -> None:
        self._record_tasks.discard(task)
        if not task.cancelled() and task.exception() is not None:
            self._error = self._error or task.exception()
        self._wake_up.set()

    def _loop_failed(self, _loop: object, context: dict[str, object]) -> None:
        """Handler of exceptions in the event loop's callbacks: the run ends after the mails in flight have ended."""
        error = context.get("exception")
        self._error = self._error or (error if isinstance(error, BaseException) else RuntimeError(str(context)))
        self._wake_up.set()
