"""Connections to relays: as many as each allows, on those that work, the preferred ones first."""

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
"""Broken connections, or refusals about us, in a row before a relay is left alone."""


_GOODBYE = 0.5  # seconds


class RelayPool:
    """The connections to one relay. Stands between them and the supply, and watches what comes back."""

    def __init__(self, relay: RelayAddress, supply: MailFeed, changed: Callable[[], None]) -> None:
        self.relay = relay
        self.down = False
        self.connections: set[Connection] = set()
        self.opening: set[asyncio.Task[None]] = set()
        self._supply, self._changed = supply, changed
        self._name = relay.name
        self._bucket = TokenBucket(relay.name, relay.per_second)
        # Asked for each mail, and these know all by themselves.
        self.may_go, self.before_dot = supply.may_go, supply.before_dot
        self._troubles = 0
        self._width = 1  # One connection until it has proved worth more.
        self.proved = False

    async def open(self) -> None:
        """Open one more connection, or learn that it can't be had."""
        try:
            wire, offers = await greet(self.relay)
        except RelayUnavailable as error:
            if self.connections:
                # It takes no more of us than these, and those that it has not answered yet.
                self._width = min(self._width, len(self.connections) + len(self.opening) - 1)
            else:
                self.give_up(str(error))
        else:
            self.connections.add(Connection(wire, offers, self.relay, self, self._ended))
        self._changed()

    def tend(self) -> None:
        """Wake who is idle; open what is missing."""
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
        if self.down:
            return None
        if not self.relay.per_second:
            return self._supply.take()
        if self._supply.exhausted:  # The bucket is asked for somebody only.
            return None
        if pause := self._bucket.wait():
            asyncio.get_running_loop().call_later(pause, self._changed)
            return None
        job = self._supply.take()
        if job is None:
            self._bucket.put_back()
        return job

    def settle(self, job: Job, outcome: DeliveryResult) -> None:
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
    """All relays that may be asked."""

    def __init__(self, addresses: Sequence[RelayAddress], supply: MailFeed, changed: Callable[[], None]) -> None:
        self._lanes = [RelayPool(address, supply, changed) for address in addresses]

    @property
    def open(self) -> list[RelayPool]:
        """The usable lanes of the best priority."""
        usable = [lane for lane in self._lanes if not lane.down]
        best = min((lane.relay.priority for lane in usable), default=0)
        return [lane for lane in usable if lane.relay.priority == best]

    async def begin(self) -> bool:
        """Whether some relay takes mail; asks no relay twice."""
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
        """Whether a connection still has something under way."""
        return any(not connection.idle for lane in self._lanes for connection in lane.connections)

    async def close(self) -> None:
        open_ones = [connection for lane in self._lanes for connection in lane.connections]  # One cut leaves its lane.
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
