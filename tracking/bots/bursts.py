"""Networks that follow links of many recipients within a minute, found for a stretch of the log at a time."""

from collections.abc import Mapping, Sequence
from datetime import timedelta

from sqlalchemy import Connection, func, select

from campaigns import clock, db
from campaigns.planning.models import Activity
from tracking.bots.rules import CROWD, CROWD_SECONDS
from tracking.bots.signals import crowds
from tracking.endpoints import ip_networks
from tracking.models.events import Event, HitKind

_AHEAD_SECONDS = 120.0


class BurstCache:
    """What is known of one stretch, for whoever looks at portions of the log that follow one another: each needs the
    minute before it and the minute behind it, which in a busy log are many times as much as the portion."""

    def __init__(self) -> None:
        self._first, self._last = 1, 0
        self._found: Mapping[int, set[int]] = {}

    def about(self, connection: Connection, instants: Sequence[int]) -> Mapping[int, set[int]]:
        """By network, the instants at which it followed links of many recipients; those of these clicks are among
        them, and more may be."""
        if not instants:
            return {}
        first, last = min(instants), max(instants)
        if not self._first <= first <= last <= self._last:
            ahead = clock.scaled(_AHEAD_SECONDS) // timedelta(microseconds=1)
            self._first, self._last = first, max(last, first + ahead)
            self._found = _crowded(connection, self._first, self._last)
        return self._found


def _crowded(connection: Connection, first: int, last: int) -> dict[int, set[int]]:
    span = clock.scaled(CROWD_SECONDS)
    nearby = [
        # Every activity's; it lets SQLite's index on (activity_id, at) be used.
        Event.activity_id.in_(select(Activity.id)),
        Event.at >= db.from_micros(first) - span,
        Event.at <= db.from_micros(last) + span,
        Event.kind == HitKind.CLICK,
        Event.send_id.is_not(None),
    ]
    # Whoever hammers on a few sends is no crowd, and may have thousands of clicks that nobody needs to look at.
    several = func.count(Event.send_id.distinct()) >= CROWD
    crowding = [
        network
        for network in connection.scalars(select(Event.network).where(*nearby).group_by(Event.network).having(several))
        if not ip_networks.is_shared(network)
    ]
    if not crowding:
        return {}
    found = select(Event.network, Event.at, Event.send_id).where(*nearby, Event.network.in_(crowding))
    rows = sorted((row.network, db.to_micros(row.at), row.send_id) for row in connection.execute(found))
    return crowds(rows, span // timedelta(microseconds=1))
