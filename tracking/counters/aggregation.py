"""Aggregation of events: first-seen rows, rollups and the milestones of sends.

There are two ways to the same numbers. :class:`RollupDelta` adds new events while they are collected.
:func:`recompute_sends` recomputes first-seen rows and milestones of some sends from all their events and moves the
rollups by the difference; it serves relabelling.
"""

from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from functools import partial
from operator import itemgetter
from typing import NamedTuple

from sqlalchemy import Connection

from tracking.counters import bulk_sql, daily
from tracking.models.events import HitKind, TrafficLabel

BUCKET_MICROS = 15 * 60 * 1_000_000
_DAY_MICROS = 24 * 3600 * 1_000_000
_OPEN, _CLICK, _HUMAN = int(HitKind.OPEN), int(HitKind.CLICK), int(TrafficLabel.HUMAN)


def bucket_start(at: int) -> int:
    return at - at % BUCKET_MICROS


class CountedEvent(NamedTuple):
    """The counted fields of an event; ``at`` in microseconds."""

    at: int
    kind: int
    label: int
    activity_id: int
    send_id: int | None
    link: int


def first_seen_of(events: Iterable[CountedEvent]) -> dict[tuple[int, ...], int]:
    """The first-seen instants of events, by :class:`bulk_sql.FirstSeenKey`. Only human events with a send count."""
    first: dict[tuple[int, ...], int] = {}
    for at, kind, label, activity_id, send_id, link in events:
        if label == _HUMAN and send_id is not None:
            key = (send_id, activity_id, kind, link)
            first[key] = min(at, first.get(key, at))
    return first


def unique_instants(known: Mapping[tuple[int, ...], int]) -> dict[tuple[int, ...], int]:
    """The instant at which each send is counted as unique, by :class:`bulk_sql.FirstSeenKey`, derived from all its
    first-seen rows. Link 0 stands for any link, and a click also counts as an open.
    """
    first = dict(known)
    for (send_id, activity_id, kind, _link), at in known.items():
        for counted in _COUNTED_AS.get(kind, (kind,)):
            key = (send_id, activity_id, counted, 0)
            was = first.get(key)
            if was is None or at < was:
                first[key] = at
    return first


_COUNTED_AS = {_CLICK: (_CLICK, _OPEN)}


class RollupDelta:
    """Changes to the rollups, collected and written at once."""

    def __init__(self) -> None:
        self.events: defaultdict[tuple[int, ...], int] = defaultdict(int)
        self._uniques: defaultdict[tuple[int, ...], int] = defaultdict(int)

    def count_event(self, event: CountedEvent, by: int = 1) -> None:
        """Add ``by`` events like this one, to its link and to link 0."""
        at, kind, label, activity_id, _send_id, link = event
        start = at - at % BUCKET_MICROS
        self.events[activity_id, start, kind, 0, label] += by
        if link:
            self.events[activity_id, start, kind, link, label] += by

    def count_unique(self, key: tuple[int, ...], at: int, by: int = 1) -> None:
        """Add ``by`` uniques for an entry of :func:`unique_instants`."""
        _send_id, activity_id, kind, link = key
        self._uniques[activity_id, at - at % BUCKET_MICROS, kind, link, _HUMAN] += by

    def write(self, connection: Connection) -> None:
        events, uniques = self.events, self._uniques
        keys = events.keys() | uniques.keys()
        counts = [(key, events.get(key, 0), uniques.get(key, 0)) for key in keys]
        if counts:
            daily.add_hits(connection, counts)
            bulk_sql.add_to_rollups(connection, counts)


def count_new_events(connection: Connection, rows: Sequence[bulk_sql.EventTuple]) -> None:
    """Count new events (:class:`bulk_sql.EventRow` as tuples) with their first labels. Does not move milestones."""
    delta = RollupDelta()
    grouped = _group_rows(rows)
    for (activity_id, start, kind, link, label), number in grouped.items():
        delta.events[activity_id, start, kind, 0, label] += number
        if link:
            delta.events[activity_id, start, kind, link, label] += number
    if any(key[4] == _HUMAN for key in grouped):
        _add_first_seen(
            connection, delta, (CountedEvent(row[1], row[7], row[8], row[4], row[2], row[10]) for row in rows)
        )
    delta.write(connection)


def _group_rows(rows: Sequence[bulk_sql.EventTuple]) -> dict[tuple[int, int, int, int, int], int]:
    """The number of rows by (activity, bucket, kind, link, label). A chunk usually lies within one bucket."""
    starts = {bucket_start(at) for at in (min(row[1] for row in rows), max(row[1] for row in rows))}
    if len(starts) > 1:
        return Counter([(row[4], row[1] - row[1] % BUCKET_MICROS, row[7], row[10], row[8]) for row in rows])
    (start,) = starts
    counted = Counter(map(_GROUP_KEY, rows))
    return {(activity_id, start, kind, link, label): n for (activity_id, kind, link, label), n in counted.items()}


_GROUP_KEY = itemgetter(4, 7, 10, 8)


def _add_first_seen(connection: Connection, delta: RollupDelta, events: Iterable[CountedEvent]) -> None:
    """Merge the first-seen instants of more events into the stored ones."""
    new = first_seen_of(events)
    if new:
        known = bulk_sql.select_first_seen(connection, {key[0] for key in new})
        _replace_first_seen(
            connection, delta, known, known | {k: at for k, at in new.items() if at < known.get(k, at + 1)}
        )


def _replace_first_seen(
    connection: Connection, delta: RollupDelta, stored: dict[tuple[int, ...], int], target: dict[tuple[int, ...], int]
) -> None:
    """Replace the first-seen rows ``stored`` of some sends by ``target``, and move the uniques accordingly."""
    before, after = unique_instants(stored), unique_instants(target)
    for counted, other, by in ((before, after, -1), (after, before, 1)):
        for key, at in counted.items():
            if other.get(key) != at:
                delta.count_unique(key, at, by)
    bulk_sql.delete_first_seen(connection, stored.keys() - target.keys())
    bulk_sql.upsert_first_seen(connection, [(key, at) for key, at in target.items() if stored.get(key) != at])


class LabelChange(NamedTuple):
    """A new label for one event."""

    id: int
    event: CountedEvent
    """The event as it was counted, with its old label."""
    label: int
    reasons: int


def apply_final_labels(connection: Connection, changes: Sequence[LabelChange], rules: int) -> None:
    """Give settling events their final labels. They must have been read under ``lock_counting``. Settling events have
    no first-seen rows, so the other events of their sends need not be read.
    """
    delta = _relabel(connection, changes, rules, settling=True)
    human = [change.event for change in changes if change.label == _HUMAN]
    _add_first_seen(connection, delta, (event._replace(label=_HUMAN) for event in human))
    bulk_sql.widen_milestones(connection, _milestone_rows(human))
    delta.write(connection)


def _milestone_rows(human: Iterable[CountedEvent]) -> list[tuple[int, int, int, int | None]]:
    """(send id, first event, last event, first click) of human opens and clicks, in microseconds."""
    found = dict[int, tuple[int, int, int | None]]()
    for at, kind, _label, _activity_id, send_id, _link in human:
        if send_id is not None and kind in _MILESTONE_KINDS:
            first, last, clicked = found.get(send_id, (at, at, None))
            if kind == _CLICK:
                clicked = at if clicked is None else min(at, clicked)
            found[send_id] = (min(at, first), max(at, last), clicked)
    return [(send_id, *milestones) for send_id, milestones in found.items()]


_MILESTONE_KINDS = (_OPEN, _CLICK)  # A click counts as an open; a view does not.


def apply_label_changes(connection: Connection, changes: Collection[LabelChange], rules: int) -> None:
    """Relabel events and move rollups, first-seen rows and milestones. The events must have been read under
    ``lock_counting`` and still have the old label of their change.
    """
    delta = _relabel(connection, changes, rules, settling=False)
    recompute_sends(connection, {change.event.send_id for change in changes if change.event.send_id is not None}, delta)
    delta.write(connection)


_make_relabelled = partial(tuple.__new__, bulk_sql.RelabelledEvent)


def _relabel(connection: Connection, changes: Collection[LabelChange], rules: int, *, settling: bool) -> RollupDelta:
    rows = [
        _make_relabelled((id, event.send_id, event.at, label, reasons, rules)) for id, event, label, reasons in changes
    ]
    bulk_sql.relabel_events(connection, rows, settling=settling)
    moves = Counter(
        (at - at % BUCKET_MICROS, kind, activity_id, link, was, label)
        for _id, (at, kind, was, activity_id, _send_id, link), label, _reasons in changes
        if label != was
    )
    delta = RollupDelta()
    for (start, kind, activity_id, link, was, label), number in moves.items():
        delta.count_event(CountedEvent(start, kind, was, activity_id, None, link), -number)
        delta.count_event(CountedEvent(start, kind, label, activity_id, None, link), number)
    return delta


def recompute_sends(connection: Connection, send_ids: Collection[int], delta: RollupDelta) -> None:
    """Recompute first-seen rows and milestones of sends from their events. Uniques are added to ``delta``."""
    if not send_ids:
        return
    events = first_and_last_events(connection, send_ids)
    _replace_first_seen(connection, delta, bulk_sql.select_first_seen(connection, send_ids), first_seen_of(events))
    human = _human_by_send(events)
    _write_milestones(connection, send_ids, lambda send_id, was: milestones(human[send_id], _date_only(was)))


_FIRST_OR_LAST_SQL = """
    SELECT {pick}(at) AS at, kind, label, activity_id, send_id, link FROM events WHERE send_id IN {{ids}}
    GROUP BY kind, label, activity_id, send_id, link
"""


def first_and_last_events(connection: Connection, send_ids: Collection[int]) -> list[CountedEvent]:
    """The first and the last event of each kind, label and link of these sends: all that first-seen rows and milestones
    depend on.
    """
    return [
        CountedEvent(bulk_sql.from_driver_instant(row[0]), *row[1:])
        for pick in ("min", "max")
        for row in bulk_sql.select_by_ids(connection, _FIRST_OR_LAST_SQL.format(pick=pick), send_ids)
    ]


class SendMilestones(NamedTuple):
    first_opened_at: int | None
    last_opened_at: int | None
    clicked_at: int | None


_NO_MILESTONES = SendMilestones(None, None, None)


def milestones(events: Iterable[CountedEvent], known: SendMilestones = _NO_MILESTONES) -> SendMilestones:
    """The milestones of one send from its human events, merged with the known ones."""
    human = [e for e in events if e.label == TrafficLabel.HUMAN]
    clicks = [e.at for e in human if e.kind == HitKind.CLICK]
    opens = [e.at for e in human if e.kind == HitKind.OPEN] + clicks
    first, last, clicked = ([] if at is None else [at] for at in known)
    return SendMilestones(
        min(opens + first, default=None), max(opens + last, default=None), min(clicks + clicked, default=None)
    )


def _date_only(stored: SendMilestones) -> SendMilestones:
    """Milestones that keep only a last open stored as a bare date: all that DELIVERABILITY consent
    leaves of a contact.
    """
    last = stored.last_opened_at
    return SendMilestones(None, last if last is not None and last % _DAY_MICROS == 0 else None, None)


def _human_by_send(events: Iterable[CountedEvent]) -> defaultdict[int, list[CountedEvent]]:
    found: defaultdict[int, list[CountedEvent]] = defaultdict(list)
    for event in events:
        if event.send_id is not None and event.label == TrafficLabel.HUMAN:
            found[event.send_id].append(event)
    return found


def _write_milestones(
    connection: Connection, send_ids: Collection[int], recompute: Callable[[int, SendMilestones], SendMilestones]
) -> None:
    if not send_ids:
        return
    rows = bulk_sql.select_by_ids(
        connection, "SELECT id, first_opened_at, last_opened_at, clicked_at FROM sends WHERE id IN {ids}", send_ids
    )
    changed = []
    for send_id, *kept in rows:
        was = SendMilestones(*(None if at is None else bulk_sql.from_driver_instant(at) for at in kept))
        now = recompute(send_id, was)
        if now != was:
            changed.append((send_id, *now))
    bulk_sql.set_milestones(connection, changed)


def record_last_open_date(connection: Connection, opened: dict[int, int]) -> None:
    """Store the date (UTC) of the last open of sends whose contacts allow only that. ``opened``:
    microseconds by send.
    """
    rows = bulk_sql.select_by_ids(
        connection, "SELECT id, first_opened_at, last_opened_at, clicked_at FROM sends WHERE id IN {ids}", opened
    )
    changed = []
    for send_id, first, last, clicked in rows:
        date = opened[send_id] - opened[send_id] % _DAY_MICROS
        if last is None or bulk_sql.from_driver_instant(last) < date:
            keep = (
                None if first is None else bulk_sql.from_driver_instant(first),
                None if clicked is None else bulk_sql.from_driver_instant(clicked),
            )
            changed.append((send_id, keep[0], date, keep[1]))
    bulk_sql.set_milestones(connection, changed)
