"""Claim a slice, send it, write down what became of it; again until the time is over.

This file owns its transactions: the claim is committed before any byte leaves, and no
transaction is open while the relay talks.
"""

import time
from collections.abc import Iterator
from contextlib import contextmanager

import structlog
from jinja2 import TemplateError

from campaigns import clock, db
from campaigns.delivery import claiming, relays, slices, smtp
from campaigns.delivery.claiming import Lease
from campaigns.delivery.compose import Letter, Mail, compose
from campaigns.delivery.journal import Journal, Mark
from campaigns.delivery.record import Result, record
from campaigns.delivery.slices import Slice
from campaigns.delivery.smtp import Connection, Fate, Outcome, RelayDown
from campaigns.errors import KampaniaError

log = structlog.get_logger()

SHIFT = 3.0
"""Seconds that one call works, so that other tasks get their turn. The tick sends for more, one call
a second, so an activity keeps at most three workers busy."""
_SLICE = 2.0  # seconds of work to claim at once
_FIRST = 100
_LOOK = 1.0  # seconds between looks at pause and suppression within a slice
_PATIENCE = 5  # lost connections or refusals about us in a row before the relay is left alone

_MARKS = {
    Fate.SENT: Mark.OK,
    Fate.DEAD: Mark.REJECTED,
    Fate.REFUSED: Mark.REJECTED,
    Fate.OURS: Mark.REJECTED,
    Fate.LATER: Mark.DEFERRED,
    Fate.LOST: Mark.DEFERRED,
    Fate.BROKEN: Mark.REJECTED,
    Fate.UNKNOWN: Mark.INTENT,
}


def deliver(activity_id: int, seconds: float = SHIFT) -> int:
    """Send what is due of an activity for about ``seconds``; how many mails had an outcome.

    Safe to run as often and as many at once as one likes.
    """
    deadline = time.monotonic() + seconds
    done, size = 0, _FIRST
    with _relay() as relay:
        while relay is not None and relay.usable and time.monotonic() < deadline:
            began = time.monotonic()
            sent = _batch(activity_id, relay, size)
            if sent is None:
                break
            done += sent
            rate = max(sent, 1) / max(time.monotonic() - began, 1e-3)
            size = max(20, min(claiming.LARGEST, int(rate * _SLICE)))
    return done


class _Relay:
    """The relay as one call of deliver() uses it: reconnects, and knows when to stop asking."""

    def __init__(self, address: smtp.RelayAddress) -> None:
        self.address = address
        self.usable = True
        self._troubles = 0
        self._connection: Connection | None = Connection(address)

    def send(self, mail: Mail, journal: Journal, position: int) -> Outcome | None:
        """Send one mail; None when the relay can't be used, and the mail was not touched."""
        if self._connection is None:
            try:
                self._connection = Connection(self.address)
            except RelayDown as down:
                self._give_up(str(down))
                return None
        outcome = self._connection.send(mail, lambda: journal.mark(position, Mark.INTENT))
        if outcome.fate in (Fate.LOST, Fate.UNKNOWN):
            self._connection = None
        self._troubles = self._troubles + 1 if outcome.fate in (Fate.LOST, Fate.UNKNOWN, Fate.OURS) else 0
        if self._troubles >= _PATIENCE:
            self._give_up(outcome.reply)
        return outcome

    def _give_up(self, error: str) -> None:
        self.usable = False
        relays.note_failure(self.address, error)

    def close(self) -> None:
        if self._connection is not None:
            self._connection.close()


@contextmanager
def _relay() -> Iterator[_Relay | None]:
    address = smtp.relay_address()
    with db.reading() as session:
        if not relays.may_ask(session):
            yield None
            return
    try:
        relay = _Relay(address)
    except RelayDown as down:
        relays.note_failure(address, str(down))
        yield None
        return
    try:
        yield relay
        if relay.usable:
            relays.note_success(address)
    finally:
        relay.close()


def _batch(activity_id: int, relay: _Relay, size: int) -> int | None:
    """One slice from claim to record; None when nothing is due."""
    with Journal.create() as journal:
        lease = Lease(journal.batch)
        with db.transaction() as session:
            ids = claiming.claim(session, activity_id, journal.batch, size)
            claimed = slices.load(session, activity_id, ids) if ids else None
        if claimed is None:
            journal.delete()
            return None
        journal.begin(claimed.ids)
        results = list(_sent(claimed, relay, lease, journal))
        with db.transaction() as session:
            record(session, journal.batch, results)
            claiming.release(session, journal.batch, claimed.ids)
        journal.delete()
        return len(results)


def _sent(claimed: Slice, relay: _Relay, lease: Lease, journal: Journal) -> Iterator[Result]:
    """The outcomes in order; whoever is left out was not touched and is still due."""
    watch = _Watch(claimed)
    for position, letter in enumerate(claimed.letters):
        if not watch.may_go(letter):
            if watch.stopped:
                return
            continue  # It has become a skipped one.
        if not lease.hold():
            return
        mail = _composed(letter)
        if isinstance(mail, Outcome):
            outcome: Outcome | None = mail
        else:
            outcome = relay.send(mail, journal, position)
        if outcome is None:
            return
        journal.mark(position, _MARKS[outcome.fate])
        yield Result(letter.send, outcome, clock.now())
        if not relay.usable:
            return


def _composed(letter: Letter) -> Mail | Outcome:
    try:
        return compose(letter, clock.now())
    except (KampaniaError, ValueError, TemplateError) as error:
        return Outcome(Fate.BROKEN, str(error)[:500])
    except Exception as error:  # A fault of ours, maybe for everybody: held, to be tried again when it is mended.
        log.exception("cannot compose", send_id=letter.send.id)
        return Outcome(Fate.OURS, f"cannot compose: {type(error).__name__}: {error}"[:500])


class _Watch:
    """Looks once a second at what may have changed since the claim: a pause, a suppression."""

    def __init__(self, claimed: Slice) -> None:
        self.stopped = False
        self._ids = claimed.ids
        self._activity_id = claimed.activity_id
        self._refused: set[int] = set()
        self._looked = time.monotonic()

    def may_go(self, letter: Letter) -> bool:
        if time.monotonic() - self._looked >= _LOOK:
            self._look(letter.send.id)
        return not self.stopped and letter.send.id not in self._refused

    def _look(self, next_id: int) -> None:
        with db.transaction() as session:
            self.stopped = not claiming.may_send(session, self._activity_id)
            rest = [send_id for send_id in self._ids if send_id >= next_id]
            self._refused |= claiming.skip_refused(session, rest)
        self._looked = time.monotonic()
