"""Connection pools of the relays, one per relay.

Mails go over the usable relays with the best priority. A pool begins with one connection and grows to the relay's limit
once a mail was answered on it.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence

from campaigns.delivery.relays import availability
from campaigns.delivery.smtp.address import RelayAddress
from campaigns.delivery.smtp.connection import Connection, Job
from campaigns.delivery.smtp.handshake import RelayUnavailable, open_connection
from campaigns.delivery.smtp.replies import DeliveryResult, DeliveryStatus
from campaigns.delivery.throttling.rate_limits import TokenBucket
from campaigns.delivery.worker.mail_feed import MailFeed

MAX_FAILURES = 5
"""Broken connections, or replies with status OURS, in a row, after which a relay is marked down."""


_CLOSE_TIMEOUT = 0.5  # seconds


class RelayPool:
    """The connections to one relay. It passes mails from the feed to them, and counts failures of the relay."""

    def __init__(self, relay: RelayAddress, feed: MailFeed, on_change: Callable[[], None]) -> None:
        self.relay = relay
        self.is_down = False
        self.connections: set[Connection] = set()
        self.opening: set[asyncio.Task[None]] = set()
        self._feed, self._on_change = feed, on_change
        self._relay_name = relay.name
        self._bucket = TokenBucket(relay.name, relay.per_second)
        # Called for each mail, so the feed's methods are used directly.
        self.may_go, self.before_dot = feed.may_go, feed.before_dot
        self._failures = 0
        self._size = 1  # One connection until the relay has answered a mail.
        self.is_proven = False

    async def add_connection(self) -> None:
        """Open one more connection. On failure the pool stops growing, or is marked down if it has no connection."""
        try:
            protocol, capabilities = await open_connection(self.relay)
        except RelayUnavailable as error:
            if self.connections:
                # The relay accepts no more than the open connections and those still being opened.
                self._size = min(self._size, len(self.connections) + len(self.opening) - 1)
            else:
                self.mark_down(str(error))
        else:
            self.connections.add(Connection(protocol, capabilities, self.relay, self, self._connection_ended))
        self._on_change()

    def maintain(self) -> None:
        """Wake idle connections, close exhausted ones, and open missing ones (at most one per waiting mail)."""
        if self.is_down or self._feed.stopped:
            return
        for connection in [each for each in self.connections if each.is_idle]:
            if connection.is_exhausted:
                self.connections.discard(connection)
                connection.close()
            else:
                connection.send_next()
        missing = self._size - len(self.connections) - len(self.opening)
        for _ in range(min(missing, self._feed.waiting)):
            task = asyncio.get_running_loop().create_task(self.add_connection())
            self.opening.add(task)
            task.add_done_callback(self.opening.discard)

    def mark_down(self, error: str) -> None:
        """Mark the relay down for this run and record the failure: no worker uses it before its retry time."""
        if not self.is_down:
            self.is_down = True
            availability.record_failure(self.relay, error)
            self._on_change()

    def _connection_ended(self, connection: Connection, error: str) -> None:
        self.connections.discard(connection)
        if not self._feed.stopped:
            self._count_failure(error)
        self._on_change()

    def _count_failure(self, error: str) -> None:
        self._failures += 1
        if self._failures >= MAX_FAILURES:
            self.mark_down(error)

    def take(self) -> Job | None:
        """The next mail for a connection; None when there is none or the relay's rate limit allows none now."""
        if self.is_down:
            return None
        if not self.relay.per_second:
            return self._feed.take()
        if self._feed.exhausted:  # Take no token from the bucket without a mail.
            return None
        if seconds := self._bucket.acquire():
            asyncio.get_running_loop().call_later(seconds, self._on_change)
            return None
        job = self._feed.take()
        if job is None:
            self._bucket.refund()
        return job

    def settle(self, job: Job, outcome: DeliveryResult) -> None:
        """Pass the result to the feed. The relay's first reply lets the pool grow to its full size."""
        outcome.relay = self._relay_name
        self._feed.settle(job, outcome)
        if outcome.status is DeliveryStatus.SENDER_REJECTED:
            self._count_failure(outcome.reply)
        elif outcome.status is DeliveryStatus.SENT or outcome.status not in (
            DeliveryStatus.CONNECTION_LOST,
            DeliveryStatus.UNKNOWN,
            DeliveryStatus.NOT_COMPOSABLE,
        ):
            self._failures = 0
            if not self.is_proven:
                self.is_proven, self._size = True, self.relay.connections
                self._on_change()

    def give_back(self, job: Job) -> None:
        self._feed.give_back(job)


class RelayPools:
    """The pools of all relays that this run may use."""

    def __init__(self, addresses: Sequence[RelayAddress], feed: MailFeed, on_change: Callable[[], None]) -> None:
        self._pools = [RelayPool(address, feed, on_change) for address in addresses]

    @property
    def usable_pools(self) -> list[RelayPool]:
        """The pools that are not down and have the best (lowest) priority among those."""
        usable = [pool for pool in self._pools if not pool.is_down]
        best = min((pool.relay.priority for pool in usable), default=0)
        return [pool for pool in usable if pool.relay.priority == best]

    async def connect(self) -> bool:
        """Open a first connection. Returns whether a relay accepted one; each relay is tried once."""
        while usable := self.usable_pools:
            await usable[0].add_connection()
            if usable[0].connections:
                return True
        return False

    def maintain(self) -> None:
        for pool in self.usable_pools:
            pool.maintain()

    @property
    def is_busy(self) -> bool:
        """Whether a connection still has a mail in flight."""
        return any(not connection.is_idle for pool in self._pools for connection in pool.connections)

    async def close(self) -> None:
        """Close all connections, wait up to _CLOSE_TIMEOUT seconds for their sockets, and record working relays."""
        # A copy: a connection that is cut removes itself from its pool.
        connections = [connection for pool in self._pools for connection in pool.connections]
        for pool in self._pools:
            for task in pool.opening:
                task.cancel()
        for connection in connections:
            connection.close()
        for pool in self._pools:
            if pool.is_proven and not pool.is_down:
                availability.record_success(pool.relay)
        closing: list[Awaitable[None]] = [task for pool in self._pools for task in pool.opening]
        closing += [connection.wait_closed(_CLOSE_TIMEOUT) for connection in connections]
        await asyncio.gather(*closing, return_exceptions=True)
