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
from campaigns.delivery.throttling.rate_limits import brakes
from campaigns.delivery.worker.provider_pacing import ProviderPacer
from campaigns.errors import KampaniaError

log = structlog.get_logger()

_LOOK = 1.0
"""Seconds between checks of pause and suppression in the database."""


class MailFeed:
    """The mails of an activity's claimed batches, for several connections at once."""

    def __init__(
        self, activity_id: int, changed: Callable[[], None], limits: Mapping[str, ProviderPacer] | None = None
    ) -> None:
        self.batches: list[Batch] = []
        self.stopped = False
        """Whether no more mail may be sent: activity paused or over, lease lost, or :meth:`stop` called."""
        self._activity_id = activity_id
        self._changed = changed
        self._limits = limits or {}
        self._several = list({limit.name: limit for limit in self._limits.values()}.values())
        self._wakes = 0.0
        self._refused: set[int] = set()
        self._braked = False
        """Whether a domain backoff was active at the last check."""
        self._looked = time.monotonic()
        self.low = 0
        """Low-water mark: when this many mails wait, ``on_change`` is called and the worker claims the next batch."""

    @property
    def waiting(self) -> int:
        """Number of mails not yet taken by a connection, without parked ones."""
        return sum(len(batch.waiting) for batch in self.batches)

    @property
    def exhausted(self) -> bool:
        """Whether no mail waits and none is parked."""
        return not self.waiting and not any(limit.aside for limit in self._several)

    def add(self, batch: Batch) -> None:
        if not self.batches:
            self._looked = time.monotonic()  # The claim has checked everything.
        if self.stopped:
            batch.waiting.clear()
        self.batches.append(batch)

    def take(self) -> Job | None:
        """The next mail, composed; None when none may be sent now. Parked mails come first, if their limit allows."""
        for limit in self._several:
            if limit.aside and (job := self._from_aside(limit)) is not None:
                return job
        while (batch := self._next_batch()) is not None and self._may_leave(batch):
            position = batch.waiting.popleft()
            self._braked = brakes.any
            if (self._refused or self._braked) and self._falls_out(batch, position):
                continue
            if self._limits:
                limited = self._limits.get(_domain(batch.claimed.sends[position]))
                if limited is not None and not self._admitted(limited, batch, position):
                    continue
            if (job := self._job(batch, position)) is not None:
                if len(batch.waiting) == self.low:
                    self._changed()
                return job
        return None

    def _from_aside(self, limit: ProviderPacer) -> Job | None:
        """The next parked mail of a provider, composed; None while its limit allows none."""
        while limit.aside:
            batch, position = limit.aside[0]
            if not self._may_leave(batch):
                return None
            if not self._falls_out(batch, position, aside=True):
                if pause := limit.pause():
                    self._wake(pause)
                    return None
                batch.aside -= 1
                if (job := self._job(batch, position)) is not None:
                    limit.aside.popleft()
                    return job
            limit.aside.popleft()
        return None

    def _falls_out(self, batch: Batch, position: int, *, aside: bool = False) -> bool:
        """Whether the send is not sent now: it was skipped, or its domain is backed off and the send is postponed."""
        send = batch.claimed.sends[position]
        pause = None
        if send.id not in self._refused:
            pause = brakes.left_alone(_domain(send))
            if pause is None:
                return False
        batch.aside -= aside
        if pause is not None:
            self._put_off(batch, position, pause)
        self._ended(batch)
        return True

    def _put_off(self, batch: Batch, position: int, pause: timedelta) -> None:
        # Rounded up to whole seconds: one UPDATE per due time.
        due_at = (clock.now() + pause).replace(microsecond=0) + timedelta(seconds=1)
        batch.parked.setdefault(due_at, []).append(batch.claimed.sends[position].id)

    def _admitted(self, limit: ProviderPacer, batch: Batch, position: int) -> bool:
        """Whether the provider's limit allows the mail now. If not, it is parked, or postponed when enough are."""
        if not limit.aside:
            pause = limit.pause()
            if not pause:
                return True
            self._wake(pause)
        if limit.full:
            self._put_off(batch, position, timedelta(seconds=limit.turn()))
            self._ended(batch)
        else:
            limit.aside.append((batch, position))
            batch.aside += 1
        return False

    def _job(self, batch: Batch, position: int) -> Job | None:
        mail = _composed(batch.claimed.letter(position))
        if isinstance(mail, DeliveryResult):
            self._leave(batch.claimed.sends[position])
            batch.note(position, mail)
            self._ended(batch)
            return None
        batch.out += 1
        return Job(mail, batch, position, batch.returns.get(position, 0), time.monotonic())

    def _leave(self, send: SendRef) -> None:
        if self._limits and (limit := self._limits.get(_domain(send))) is not None:
            limit.places.leave()

    def _wake(self, pause: float) -> None:
        loop = asyncio.get_running_loop()
        if self._wakes <= loop.time():
            self._wakes = loop.time() + pause
            loop.call_later(pause, self._changed)

    def set_down(self) -> None:
        """Postpone the parked mails: they are due again within a second."""
        for limit in self._several:
            while limit.aside:
                batch, position = limit.aside.popleft()
                batch.aside -= 1
                self._put_off(batch, position, timedelta())
                self._ended(batch)

    def _next_batch(self) -> Batch | None:
        for batch in self.batches:
            if batch.waiting:
                return batch
        return None

    def _may_leave(self, batch: Batch) -> bool:
        if not self.stopped and time.monotonic() - self._looked >= _LOOK:
            self._look()
        if not self.stopped and not batch.lease.hold():
            self.stop()
        return not self.stopped

    def _look(self) -> None:
        rest = [batch.claimed.sends[position].id for batch in self.batches for position in batch.touchable]
        # Usually only a read: the connections wait for it, and SQLite's write lock may be held for long.
        with db.reading() as session:
            if not claims.may_send(session, self._activity_id):
                self.stop()
            refused = skips.refused(session, rest)
        if refused:
            with db.transaction() as session:
                self._refused |= skips.skip_refused(session, refused)
        self._looked = time.monotonic()

    def may_go(self, job: Job) -> bool:
        """Whether a mail's content may still be sent. It may have waited long for the reply to its envelope."""
        batch: Batch = job.batch
        if time.monotonic() - job.taken >= _LOOK:
            self._may_leave(batch)
        return not self.stopped and not (self._refused and batch.claimed.sends[job.position].id in self._refused)

    def before_dot(self, job: Job) -> None:
        """Write INTENT to the journal before the final dot is sent."""
        batch: Batch = job.batch
        batch.journal.mark(job.position, JournalStatus.INTENT)
        batch.touchable.discard(job.position)

    def settle(self, job: Job, outcome: DeliveryResult) -> None:
        """Add the result of a mail to its batch, and count it for the domain's backoff and the provider's limit."""
        batch: Batch = job.batch
        batch.note(job.position, outcome)
        if self._limits:
            self._leave(batch.claimed.sends[job.position])
        if outcome.status is DeliveryStatus.DEFERRED:
            brakes.later(_domain(batch.claimed.sends[job.position]))
        elif self._braked and outcome.status is DeliveryStatus.SENT:
            brakes.well(_domain(batch.claimed.sends[job.position]))
        batch.out -= 1
        self._ended(batch)

    def give_back(self, job: Job) -> None:
        """Return an untouched mail to the front of its batch."""
        batch: Batch = job.batch
        batch.out -= 1
        batch.returns[job.position] = job.returns + 1
        self._leave(batch.claimed.sends[job.position])
        if self.stopped:
            self._ended(batch)
        else:
            batch.waiting.appendleft(job.position)
            self._changed()

    def stop(self) -> None:
        """Send no more mail. Waiting and parked sends keep their due time."""
        if self.stopped:
            return
        self.stopped = True
        for limit in self._several:
            limit.aside.clear()
        for batch in self.batches:
            batch.waiting.clear()
            batch.aside = 0
        self._changed()

    def _ended(self, batch: Batch) -> None:
        if batch.over:
            self._changed()


def _domain(send: SendRef) -> str:
    return send.address.rpartition("@")[2]


def _composed(letter: MailContext) -> OutgoingMail | DeliveryResult:
    try:
        return compose(letter, clock.now())
    except (KampaniaError, ValueError, TemplateError) as error:
        return DeliveryResult(DeliveryStatus.NOT_COMPOSABLE, str(error)[:500])
    except Exception as error:  # A bug that may affect every mail: held until it is fixed.
        log.exception("cannot compose", send_id=letter.send.id)
        return DeliveryResult(DeliveryStatus.SENDER_REJECTED, f"cannot compose: {type(error).__name__}: {error}"[:500])
