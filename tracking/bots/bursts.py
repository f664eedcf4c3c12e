"""Crowd detection: networks that follow links of many recipients within a minute."""

from collections.abc import Mapping, Sequence
from datetime import timedelta

from sqlalchemy import Connection, func, select

from campaigns import clock, db
from campaigns.planning.models import Activity
from tracking.bots.rules import CROWD_RECIPIENTS, CROWD_SECONDS
from tracking.bots.signals import find_crowds
from tracking.endpoints import ip_networks
from tracking.models.events import Event, HitKind

_LOOKAHEAD_SECONDS = 120.0


class BurstCache:
    """Caches the crowds of one time range. Consecutive chunks of events overlap by a minute before and after; in a busy
    log those minutes hold many more events than the chunk. Without the cache each chunk would read them again.
    """

    def __init__(self) -> None:
        self._covered_from, self._covered_until = 1, 0
        self._crowds: Mapping[int, set[int]] = {}

    def crowds_around(self, connection: Connection, instants: Sequence[int]) -> Mapping[int, set[int]]:
        """By network, the instants (microseconds) at which it followed links of many recipients. Contains all that fall
        into the range of ``instants`` and may contain more.
        """
        if not instants:
            return {}
        first, last = min(instants), max(instants)
        if not self._covered_from <= first <= last <= self._covered_until:
            ahead = clock.scaled(_LOOKAHEAD_SECONDS) // timedelta(microseconds=1)
            self._covered_from, self._covered_until = first, max(last, first + ahead)
            self._crowds = _find_crowds(connection, self._covered_from, self._covered_until)
        return self._crowds


def _find_crowds(connection: Connection, first: int, last: int) -> dict[int, set[int]]:
    span = clock.scaled(CROWD_SECONDS)
    nearby = [
        # True for every event; it allows SQLite to use the index on (activity_id, at).
        Event.activity_id.in_(select(Activity.id)),
        Event.at >= db.from_micros(first) - span,
        Event.at <= db.from_micros(last) + span,
        Event.kind == HitKind.CLICK,
        Event.send_id.is_not(None),
    ]
    # Many clicks on few sends are no crowd; such a network may have thousands of them, which need not be read.
    many_recipients = func.count(Event.send_id.distinct()) >= CROWD_RECIPIENTS
    networks = [
        network
        for network in connection.scalars(
            select(Event.network).where(*nearby).group_by(Event.network).having(many_recipients)
        )
        if not ip_networks.is_shared(network)
    ]
    if not networks:
        return {}
    found = select(Event.network, Event.at, Event.send_id).where(*nearby, Event.network.in_(networks))
    rows = sorted((row.network, db.to_micros(row.at), row.send_id) for row in connection.execute(found))
    return find_crowds(rows, span // timedelta(microseconds=1))
