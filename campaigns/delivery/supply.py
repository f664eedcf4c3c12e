"""Which mail goes next: composed just ahead of the wire, and only if it still may go."""

import time
from collections.abc import Callable
from datetime import timedelta

import structlog
from jinja2 import TemplateError

from campaigns import clock, db
from campaigns.delivery import claiming
from campaigns.delivery.answers import Fate, Outcome
from campaigns.delivery.batches import Batch
from campaigns.delivery.compose import Letter, Mail, compose
from campaigns.delivery.journal import Mark
from campaigns.delivery.smtp import Job
from campaigns.delivery.throttle import brakes
from campaigns.errors import KampaniaError

log = structlog.get_logger()

_LOOK = 1.0
"""Seconds between looks at pause and suppression."""


class Supply:
    """The letters of an activity's claimed batches, for several connections at once."""

    def __init__(self, activity_id: int, changed: Callable[[], None]) -> None:
        self.batches: list[Batch] = []
        self.stopped = False
        """Whether nothing more may leave: paused, without a lease, or told so."""
        self._activity_id = activity_id
        self._changed = changed
        self._refused: set[int] = set()
        self._looked = time.monotonic()
        self.low = 0
        """Below so many waiting the owner is told, so that it claims more in time."""

    @property
    def waiting(self) -> int:
        return sum(len(batch.waiting) for batch in self.batches)

    def add(self, batch: Batch) -> None:
        if not self.batches:
            self._looked = time.monotonic()  # It was all looked at when it was claimed.
        if self.stopped:
            batch.waiting.clear()
        self.batches.append(batch)

    def take(self) -> Job | None:
        """The next mail, composed; None when nobody waits or nothing may leave."""
        while (batch := self._next_batch()) is not None and self._may_leave(batch):
            position = batch.waiting.popleft()
            letter = batch.claimed.letters[position]
            if letter.send.id in self._refused:
                self._ended(batch)  # It has become a skipped one.
                continue
            if self._parked(batch, letter):
                continue
            mail = _composed(letter)
            if isinstance(mail, Outcome):
                batch.note(position, mail)
                self._ended(batch)
                continue
            batch.out += 1
            if len(batch.waiting) == self.low:
                self._changed()
            return Job(mail, batch, position, batch.returns.get(position, 0), time.monotonic())
        return None

    def _parked(self, batch: Batch, letter: Letter) -> bool:
        """Whether its domain is to be left alone just now."""
        pause = brakes.left_alone(_domain(letter))
        if pause is None:
            return False
        # Whole seconds, so that few different instants come back.
        due_at = (clock.now() + pause).replace(microsecond=0) + timedelta(seconds=1)
        batch.parked.setdefault(due_at, []).append(letter.send.id)
        self._ended(batch)
        return True

    def _next_batch(self) -> Batch | None:
        return next((batch for batch in self.batches if batch.waiting), None)

    def _may_leave(self, batch: Batch) -> bool:
        if not self.stopped and time.monotonic() - self._looked >= _LOOK:
            self._look()
        if not self.stopped and not batch.lease.hold():
            self.stop()
        return not self.stopped

    def _look(self) -> None:
        rest = [send_id for batch in self.batches for send_id in batch.touchable]
        with db.transaction() as session:
            if not claiming.may_send(session, self._activity_id):
                self.stop()
            self._refused |= claiming.skip_refused(session, rest)
        self._looked = time.monotonic()

    def may_go(self, job: Job) -> bool:
        """Whether a mail whose envelope the relay has taken may still go: it may have waited for long."""
        batch = _batch(job)
        if time.monotonic() - job.taken >= _LOOK:
            self._may_leave(batch)
        return not self.stopped and batch.claimed.letters[job.position].send.id not in self._refused

    def before_dot(self, job: Job) -> None:
        batch = _batch(job)
        batch.journal.mark(job.position, Mark.INTENT)
        batch.touchable.discard(batch.claimed.letters[job.position].send.id)

    def settle(self, job: Job, outcome: Outcome) -> None:
        batch = _batch(job)
        batch.note(job.position, outcome)
        domain = _domain(batch.claimed.letters[job.position])
        if outcome.fate is Fate.LATER:
            brakes.later(domain)
        elif outcome.fate is Fate.SENT:
            brakes.well(domain)
        batch.out -= 1
        self._ended(batch)

    def give_back(self, job: Job) -> None:
        batch = _batch(job)
        batch.out -= 1
        batch.returns[job.position] = job.returns + 1
        if self.stopped:
            self._ended(batch)
        else:
            batch.waiting.appendleft(job.position)
            self._changed()

    def stop(self) -> None:
        """Nothing more leaves; whoever waits is left as due as before."""
        if self.stopped:
            return
        self.stopped = True
        for batch in self.batches:
            batch.waiting.clear()
        self._changed()

    def _ended(self, batch: Batch) -> None:
        if batch.over:
            self._changed()


def _domain(letter: Letter) -> str:
    return letter.send.address.rpartition("@")[2]


def _batch(job: Job) -> Batch:
    assert isinstance(job.batch, Batch)
    return job.batch


def _composed(letter: Letter) -> Mail | Outcome:
    try:
        return compose(letter, clock.now())
    except (KampaniaError, ValueError, TemplateError) as error:
        return Outcome(Fate.BROKEN, str(error)[:500])
    except Exception as error:  # A fault of ours, maybe for everybody: held, to be tried again when it is mended.
        log.exception("cannot compose", send_id=letter.send.id)
        return Outcome(Fate.OURS, f"cannot compose: {type(error).__name__}: {error}"[:500])
