"""Connection pools of the relays, one per relay.

Mails go over the usable relays with the best priority. A pool begins with one connection and grows to the relay's limit
once a mail was answered on it.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence

from campaigns.delivery.relays import availability
from campaigns.delivery.smtp.address import RelayAddress
from campaigns.delivery.smtp.connection import Connection, Job
from campaigns.delivery.smtp.handshake import RelayUnavailable, greet
from campaigns.delivery.smtp.replies import DeliveryResult, DeliveryStatus
from campaigns.delivery.throttling.rate_limits import TokenBucket
from campaigns.delivery.worker.mail_feed import MailFeed

PATIENCE = 5
"""Broken connections, or replies with status OURS, in a row, after which a relay is marked down."""


_GOODBYE = 0.5  # seconds


class RelayPool:
    """The connections to one relay. It passes mails from the feed to them, and counts failures of the relay."""

    def __init__(self, relay: RelayAddress, supply: MailFeed, changed: Callable[[], None]) -> None:
        self.relay = relay
        self.down = False
        self.connections: set[Connection] = set()
        self.opening: set[asyncio.Task[None]] = set()
        self._supply, self._changed = supply, changed
        self._name = relay.name
        self._bucket = TokenBucket(relay.name, relay.per_second)
        # Called for each mail, so the feed's methods are used directly.
        self.may_go, self.before_dot = supply.may_go, supply.before_dot
        self._troubles = 0
        self._width = 1  # One connection until the relay has answered a mail.
        self.proved = False

    async def open(self) -> None:
        """Open one more connection. On failure the pool stops growing, or is marked down if it has no connection."""
        try:
            wire, offers = await greet(self.relay)
        except RelayUnavailable as error:
            if self.connections:
                # The relay accepts no more than the open connections and those still being opened.
                self._width = min(self._width, len(self.connections) + len(self.opening) - 1)
            else:
                self.give_up(str(error))
        else:
            self.connections.add(Connection(wire, offers, self.relay, self, self._ended))
        self._changed()

    def tend(self) -> None:
        """Wake idle connections, close exhausted ones, and open missing ones (at most one per waiting mail)."""
        if self.down or self._supply.stopped:
            return
        for connection in [each for each in self.connections if each.idle]:
            if connection.worn:
                self.connections.discard(connection)
                connection.close()
            else:
                connection.go()
        missing = self._width - len(self.connections) - len(self.opening)
        for _ in range(min(missing, self._supply.waiting)):
            task = asyncio.get_running_loop().create_task(self.open())
            self.opening.add(task)
            task.add_done_callback(self.opening.discard)

    def give_up(self, error: str) -> None:
        """Mark the relay down for this run and record the failure: no worker uses it before its retry time."""
        if not self.down:
            self.down = True
            availability.note_failure(self.relay, error)
            self._changed()

    def _ended(self, connection: Connection, why: str) -> None:
        self.connections.discard(connection)
        if not self._supply.stopped:
            self._trouble(why)
        self._changed()

    def _trouble(self, why: str) -> None:
        self._troubles += 1
        if self._troubles >= PATIENCE:
            self.give_up(why)

    def take(self) -> Job | None:
        """The next mail for a connection; None when there is none or the relay's rate limit allows none now."""
        if self.down:
            return None
        if not self.relay.per_second:
            return self._supply.take()
        if self._supply.exhausted:  # Take no token from the bucket without a mail.
            return None
        if pause := self._bucket.wait():
            asyncio.get_running_loop().call_later(pause, self._changed)
            return None
        job = self._supply.take()
        if job is None:
            self._bucket.put_back()
        return job

    def settle(self, job: Job, outcome: DeliveryResult) -> None:
        """Pass the result to the feed. The relay's first reply lets the pool grow to its full size."""
        outcome.relay = self._name
        self._supply.settle(job, outcome)
        if outcome.status is DeliveryStatus.SENDER_REJECTED:
            self._trouble(outcome.reply)
        elif outcome.status is DeliveryStatus.SENT or outcome.status not in (
            DeliveryStatus.CONNECTION_LOST,
            DeliveryStatus.UNKNOWN,
            DeliveryStatus.NOT_COMPOSABLE,
        ):
            self._troubles = 0
            if not self.proved:
                self.proved, self._width = True, self.relay.connections
                self._changed()

    def give_back(self, job: Job) -> None:
        self._supply.give_back(job)


class RelayPools:
    """The pools of all relays that this run may use."""

    def __init__(self, addresses: Sequence[RelayAddress], supply: MailFeed, changed: Callable[[], None]) -> None:
        self._lanes = [RelayPool(address, supply, changed) for address in addresses]

    @property
    def open(self) -> list[RelayPool]:
        """The pools that are not down and have the best (lowest) priority among those."""
        usable = [lane for lane in self._lanes if not lane.down]
        best = min((lane.relay.priority for lane in usable), default=0)
        return [lane for lane in usable if lane.relay.priority == best]

    async def begin(self) -> bool:
        """Open a first connection. Returns whether a relay accepted one; each relay is tried once."""
        while usable := self.open:
            await usable[0].open()
            if usable[0].connections:
                return True
        return False

    def tend(self) -> None:
        for lane in self.open:
            lane.tend()

    @property
    def busy(self) -> bool:
        """Whether a connection still has a mail in flight."""
        return any(not connection.idle for lane in self._lanes for connection in lane.connections)

    async def close(self) -> None:
        """Close all connections, wait up to _CLOSE_TIMEOUT seconds for their sockets, and record working relays."""
        # A copy: a connection that is cut removes itself from its pool.
        open_ones = [connection for lane in self._lanes for connection in lane.connections]
        for lane in self._lanes:
            for task in lane.opening:
                task.cancel()
        for connection in open_ones:
            connection.close()
        for lane in self._lanes:
            if lane.proved and not lane.down:
                availability.note_success(lane.relay)
        ends: list[Awaitable[None]] = [task for lane in self._lanes for task in lane.opening]
        ends += [connection.gone(_GOODBYE) for connection in open_ones]
        await asyncio.gather(*ends, return_exceptions=True)
