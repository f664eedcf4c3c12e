"""Feed of composed mails to the connections.

Mails are composed just before they are sent. Pause, stop time, lease, suppression, domain backoff and provider limits
are checked before a mail is sent.
"""

import asyncio
import time
from collections.abc import Callable, Mapping
from datetime import timedelta

import structlog
from jinja2 import TemplateError

from campaigns import clock, db
from campaigns.delivery.mime.compose import MailContext, SendRef, compose
from campaigns.delivery.mime.envelope import OutgoingMail
from campaigns.delivery.queue import claims, skips
from campaigns.delivery.queue.batch import Batch
from campaigns.delivery.queue.journal import JournalStatus
from campaigns.delivery.smtp.connection import Job
from campaigns.delivery.smtp.replies import DeliveryResult, DeliveryStatus
from campaigns.delivery.throttling.rate_limits import domain_backoff
from campaigns.delivery.worker.provider_pacing import ProviderPacer
from campaigns.errors import KampaniaError

log = structlog.get_logger()

_CHECK_INTERVAL = 1.0
"""Seconds between checks of pause and suppression in the database."""


class MailFeed:
    """The mails of an activity's claimed batches, for several connections at once."""

    def __init__(
        self,
        activity_id: int,
        on_change: Callable[[], None],
        pacer_by_domain: Mapping[str, ProviderPacer] | None = None,
    ) -> None:
        self.batches: list[Batch] = []
        self.stopped = False
        """Whether no more mail may be sent: activity paused or over, lease lost, or :meth:`stop` called."""
        self._activity_id = activity_id
        self._on_change = on_change
        self._pacer_by_domain = pacer_by_domain or {}
        self._pacers = list({pacer.name: pacer for pacer in self._pacer_by_domain.values()}.values())
        self._wake_time = 0.0
        self._refused_ids: set[int] = set()
        self._has_backoff = False
        """Whether a domain backoff was active at the last check."""
        self._checked_at = time.monotonic()
        self.low_water = 0
        """Low-water mark: when this many mails wait, ``on_change`` is called and the worker claims the next batch."""

    @property
    def waiting(self) -> int:
        """Number of mails not yet taken by a connection, without parked ones."""
        return sum(len(batch.waiting) for batch in self.batches)

    @property
    def exhausted(self) -> bool:
        """Whether no mail waits and none is parked."""
        return not self.waiting and not any(pacer.parked for pacer in self._pacers)

    def add(self, batch: Batch) -> None:
        if not self.batches:
            self._checked_at = time.monotonic()  # The claim has checked everything.
        if self.stopped:
            batch.waiting.clear()
        self.batches.append(batch)

    def take(self) -> Job | None:
        """The next mail, composed; None when none may be sent now. Parked mails come first, if their limit allows."""
        for pacer in self._pacers:
            if pacer.parked and (job := self._take_parked(pacer)) is not None:
                return job
        while (batch := self._next_batch()) is not None and self._may_send(batch):
            position = batch.waiting.popleft()
            self._has_backoff = domain_backoff.is_active
            if (self._refused_ids or self._has_backoff) and self._is_excluded(batch, position):
                continue
            if self._pacer_by_domain:
                domain_pacer = self._pacer_by_domain.get(_domain(batch.payload.sends[position]))
                if domain_pacer is not None and not self._admit_or_park(domain_pacer, batch, position):
                    continue
            if (job := self._compose_job(batch, position)) is not None:
                if len(batch.waiting) == self.low_water:
                    self._on_change()
                return job
        return None

    def _take_parked(self, pacer: ProviderPacer) -> Job | None:
        """The next parked mail of a provider, composed; None while its limit allows none."""
        while pacer.parked:
            batch, position = pacer.parked[0]
            if not self._may_send(batch):
                return None
            if not self._is_excluded(batch, position, is_parked=True):
                if seconds := pacer.acquire():
                    self._wake_after(seconds)
                    return None
                batch.parked_count -= 1
                if (job := self._compose_job(batch, position)) is not None:
                    pacer.parked.popleft()
                    return job
            pacer.parked.popleft()
        return None

    def _is_excluded(self, batch: Batch, position: int, *, is_parked: bool = False) -> bool:
        """Whether the send is not sent now: it was skipped, or its domain is backed off and the send is postponed."""
        send = batch.payload.sends[position]
        pause = None
        if send.id not in self._refused_ids:
            pause = domain_backoff.remaining_pause(_domain(send))
            if pause is None:
                return False
        batch.parked_count -= is_parked
        if pause is not None:
            self._postpone(batch, position, pause)
        self._notify_if_finished(batch)
        return True

    def _postpone(self, batch: Batch, position: int, delay: timedelta) -> None:
        # Rounded up to whole seconds: one UPDATE per due time.
        due_at = (clock.now() + delay).replace(microsecond=0) + timedelta(seconds=1)
        batch.postponed.setdefault(due_at, []).append(batch.payload.sends[position].id)

    def _admit_or_park(self, pacer: ProviderPacer, batch: Batch, position: int) -> bool:
        """Whether the provider's limit allows the mail now. If not, it is parked, or postponed when enough are."""
        if not pacer.parked:
            seconds = pacer.acquire()
            if not seconds:
                return True
            self._wake_after(seconds)
        if pacer.is_full:
            self._postpone(batch, position, timedelta(seconds=pacer.next_slot()))
            self._notify_if_finished(batch)
        else:
            pacer.parked.append((batch, position))
            batch.parked_count += 1
        return False

    def _compose_job(self, batch: Batch, position: int) -> Job | None:
        mail = _compose_or_fail(batch.payload.mail_context(position))
        if isinstance(mail, DeliveryResult):
            self._release_slot(batch.payload.sends[position])
            batch.add_result(position, mail)
            self._notify_if_finished(batch)
            return None
        batch.in_flight += 1
        return Job(mail, batch, position, batch.disconnects.get(position, 0), time.monotonic())

    def _release_slot(self, send: SendRef) -> None:
        if self._pacer_by_domain and (pacer := self._pacer_by_domain.get(_domain(send))) is not None:
            pacer.concurrency.release()

    def _wake_after(self, seconds: float) -> None:
        loop = asyncio.get_running_loop()
        if self._wake_time <= loop.time():
            self._wake_time = loop.time() + seconds
            loop.call_later(seconds, self._on_change)

    def requeue_parked(self) -> None:
        """Postpone the parked mails: they are due again within a second."""
        for pacer in self._pacers:
            while pacer.parked:
                batch, position = pacer.parked.popleft()
                batch.parked_count -= 1
                self._postpone(batch, position, timedelta())
                self._notify_if_finished(batch)

    def _next_batch(self) -> Batch | None:
        for batch in self.batches:
            if batch.waiting:
                return batch
        return None

    def _may_send(self, batch: Batch) -> bool:
        if not self.stopped and time.monotonic() - self._checked_at >= _CHECK_INTERVAL:
            self._check_database()
        if not self.stopped and not batch.lease.ensure_held():
            self.stop()
        return not self.stopped

    def _check_database(self) -> None:
        revocable_ids = [batch.payload.sends[position].id for batch in self.batches for position in batch.revocable]
        # Usually only a read: the connections wait for it, and SQLite's write lock may be held for long.
        with db.read_only_session() as session:
            if not claims.may_send(session, self._activity_id):
                self.stop()
            refused = skips.find_refused(session, revocable_ids)
        if refused:
            with db.transaction() as session:
                self._refused_ids |= skips.skip_refused(session, refused)
        self._checked_at = time.monotonic()

    def may_go(self, job: Job) -> bool:
        """Whether a mail's content may still be sent. It may have waited long for the reply to its envelope."""
        batch: Batch = job.batch
        if time.monotonic() - job.taken_at >= _CHECK_INTERVAL:
            self._may_send(batch)
        return not self.stopped and not (
            self._refused_ids and batch.payload.sends[job.position].id in self._refused_ids
        )

    def before_dot(self, job: Job) -> None:
        """Write INTENT to the journal before the final dot is sent."""
        batch: Batch = job.batch
        batch.journal.set_status(job.position, JournalStatus.INTENT)
        batch.revocable.discard(job.position)

    def settle(self, job: Job, outcome: DeliveryResult) -> None:
        """Add the result of a mail to its batch, and count it for the domain's backoff and the provider's limit."""
        batch: Batch = job.batch
        batch.add_result(job.position, outcome)
        if self._pacer_by_domain:
            self._release_slot(batch.payload.sends[job.position])
        if outcome.status is DeliveryStatus.DEFERRED:
            domain_backoff.record_deferral(_domain(batch.payload.sends[job.position]))
        elif self._has_backoff and outcome.status is DeliveryStatus.SENT:
            domain_backoff.record_success(_domain(batch.payload.sends[job.position]))
        batch.in_flight -= 1
        self._notify_if_finished(batch)

    def give_back(self, job: Job) -> None:
        """Return an untouched mail to the front of its batch."""
        batch: Batch = job.batch
        batch.in_flight -= 1
        batch.disconnects[job.position] = job.returns + 1
        self._release_slot(batch.payload.sends[job.position])
        if self.stopped:
            self._notify_if_finished(batch)
        else:
            batch.waiting.appendleft(job.position)
            self._on_change()

    def stop(self) -> None:
        """Send no more mail. Waiting and parked sends keep their due time."""
        if self.stopped:
            return
        self.stopped = True
        for pacer in self._pacers:
            pacer.parked.clear()
        for batch in self.batches:
            batch.waiting.clear()
            batch.parked_count = 0
        self._on_change()

    def _notify_if_finished(self, batch: Batch) -> None:
        if batch.is_finished:
            self._on_change()


def _domain(send: SendRef) -> str:
    return send.address.rpartition("@")[2]


def _compose_or_fail(context: MailContext) -> OutgoingMail | DeliveryResult:
    try:
        return compose(context, clock.now())
    except (KampaniaError, ValueError, TemplateError) as error:
        return DeliveryResult(DeliveryStatus.NOT_COMPOSABLE, str(error)[:500])
    except Exception as error:  # A bug that may affect every mail: held until it is fixed.
        log.exception("mail.compose_failed", send_id=context.send.id)
        return DeliveryResult(DeliveryStatus.SENDER_REJECTED, f"cannot compose: {type(error).__name__}: {error}"[:500])
