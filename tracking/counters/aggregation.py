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

BUCKET = 15 * 60 * 1_000_000
_DAY = 24 * 3600 * 1_000_000
_OPEN, _CLICK, _HUMAN = int(HitKind.OPEN), int(HitKind.CLICK), int(TrafficLabel.HUMAN)


def bucket(at: int) -> int:
    return at - at % BUCKET


class CountedEvent(NamedTuple):
    """The counted fields of an event; ``at`` in microseconds."""

    at: int
    kind: int
    label: int
    activity_id: int
    send_id: int | None
    link: int


def marks(events: Iterable[CountedEvent]) -> dict[tuple[int, ...], int]:
    """The first-seen instants of events, by :class:`bulk_sql.FirstSeenKey`. Only human events with a send count."""
    first: dict[tuple[int, ...], int] = {}
    for at, kind, label, activity_id, send_id, link in events:
        if label == _HUMAN and send_id is not None:
            key = (send_id, activity_id, kind, link)
            first[key] = min(at, first.get(key, at))
    return first


def uniques(known: Mapping[tuple[int, ...], int]) -> dict[tuple[int, ...], int]:
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

    def count(self, event: CountedEvent, by: int = 1) -> None:
        """Add ``by`` events like this one, to its link and to link 0."""
        at, kind, label, activity_id, _send_id, link = event
        start = at - at % BUCKET
        self.events[activity_id, start, kind, 0, label] += by
        if link:
            self.events[activity_id, start, kind, link, label] += by

    def mark(self, key: tuple[int, ...], at: int, by: int = 1) -> None:
        """Add ``by`` uniques for an entry of :func:`unique_instants`."""
        _send_id, activity_id, kind, link = key
        self._uniques[activity_id, at - at % BUCKET, kind, link, _HUMAN] += by

    def write(self, connection: Connection) -> None:
        events, uniques = self.events, self._uniques
        keys = events.keys() | uniques.keys()
        counts = [(key, events.get(key, 0), uniques.get(key, 0)) for key in keys]
        if counts:
            daily.add_hits(connection, counts)
            bulk_sql.add_counts(connection, counts)


def add(connection: Connection, rows: Sequence[bulk_sql.EventTuple]) -> None:
    """Count new events (:class:`bulk_sql.EventRow` as tuples) with their first labels. Does not move milestones."""
    tally = RollupDelta()
    alike = _alike(rows)
    for (activity_id, start, kind, link, label), number in alike.items():
        tally.events[activity_id, start, kind, 0, label] += number
        if link:
            tally.events[activity_id, start, kind, link, label] += number
    if any(key[4] == _HUMAN for key in alike):
        _mark(connection, tally, (CountedEvent(row[1], row[7], row[8], row[4], row[2], row[10]) for row in rows))
    tally.write(connection)


def _alike(rows: Sequence[bulk_sql.EventTuple]) -> dict[tuple[int, int, int, int, int], int]:
    """The number of rows by (activity, bucket, kind, link, label). A chunk usually lies within one bucket."""
    starts = {bucket(at) for at in (min(row[1] for row in rows), max(row[1] for row in rows))}
    if len(starts) > 1:
        return Counter([(row[4], row[1] - row[1] % BUCKET, row[7], row[10], row[8]) for row in rows])
    (start,) = starts
    some = Counter(map(_ALIKE, rows))
    return {(activity_id, start, kind, link, label): n for (activity_id, kind, link, label), n in some.items()}


_ALIKE = itemgetter(4, 7, 10, 8)


def _mark(connection: Connection, tally: RollupDelta, events: Iterable[CountedEvent]) -> None:
    """Merge the first-seen instants of more events into the stored ones."""
    new = marks(events)
    if new:
        known = bulk_sql.marks_of(connection, {key[0] for key in new})
        _write_marks(connection, tally, known, known | {k: at for k, at in new.items() if at < known.get(k, at + 1)})


def _write_marks(
    connection: Connection, tally: RollupDelta, known: dict[tuple[int, ...], int], wanted: dict[tuple[int, ...], int]
) -> None:
    """Replace the first-seen rows ``stored`` of some sends by ``target``, and move the uniques accordingly."""
    before, after = uniques(known), uniques(wanted)
    for counted, other, by in ((before, after, -1), (after, before, 1)):
        for key, at in counted.items():
            if other.get(key) != at:
                tally.mark(key, at, by)
    bulk_sql.drop_marks(connection, known.keys() - wanted.keys())
    bulk_sql.put_marks(connection, [(key, at) for key, at in wanted.items() if known.get(key) != at])


class LabelChange(NamedTuple):
    """A new label for one event."""

    id: int
    event: CountedEvent
    """The event as it was counted, with its old label."""
    label: int
    reasons: int


def settle(connection: Connection, changes: Sequence[LabelChange], rules: int) -> None:
    """Give settling events their final labels. They must have been read under ``lock_counting``. Settling events have
    no first-seen rows, so the other events of their sends need not be read.
    """
    tally = _relabelled(connection, changes, rules, settling=True)
    human = [change.event for change in changes if change.label == _HUMAN]
    _mark(connection, tally, (event._replace(label=_HUMAN) for event in human))
    bulk_sql.widen_milestones(connection, _milestones_of(human))
    tally.write(connection)


def _milestones_of(human: Iterable[CountedEvent]) -> list[tuple[int, int, int, int | None]]:
    """(send id, first event, last event, first click) of human opens and clicks, in microseconds."""
    found = dict[int, tuple[int, int, int | None]]()
    for at, kind, _label, _activity_id, send_id, _link in human:
        if send_id is not None and kind in _SHOWN:
            first, last, clicked = found.get(send_id, (at, at, None))
            if kind == _CLICK:
                clicked = at if clicked is None else min(at, clicked)
            found[send_id] = (min(at, first), max(at, last), clicked)
    return [(send_id, *milestones) for send_id, milestones in found.items()]


_SHOWN = (_OPEN, _CLICK)  # A click counts as an open; a view does not.


def move(connection: Connection, changes: Collection[LabelChange], rules: int) -> None:
    """Relabel events and move rollups, first-seen rows and milestones. The events must have been read under
    ``lock_counting`` and still have the old label of their change.
    """
    tally = _relabelled(connection, changes, rules, settling=False)
    reconcile(connection, {change.event.send_id for change in changes if change.event.send_id is not None}, tally)
    tally.write(connection)


_row = partial(tuple.__new__, bulk_sql.Relabelled)


def _relabelled(connection: Connection, changes: Collection[LabelChange], rules: int, *, settling: bool) -> RollupDelta:
    rows = [_row((id, event.send_id, event.at, label, reasons, rules)) for id, event, label, reasons in changes]
    bulk_sql.relabel_events(connection, rows, settling=settling)
    moved = Counter(
        (at - at % BUCKET, kind, activity_id, link, was, label)
        for _id, (at, kind, was, activity_id, _send_id, link), label, _reasons in changes
        if label != was
    )
    tally = RollupDelta()
    for (start, kind, activity_id, link, was, label), number in moved.items():
        tally.count(CountedEvent(start, kind, was, activity_id, None, link), -number)
        tally.count(CountedEvent(start, kind, label, activity_id, None, link), number)
    return tally


def reconcile(connection: Connection, send_ids: Collection[int], tally: RollupDelta) -> None:
    """Recompute first-seen rows and milestones of sends from their events. Uniques are added to ``delta``."""
    if not send_ids:
        return
    events = events_of(connection, send_ids)
    _write_marks(connection, tally, bulk_sql.marks_of(connection, send_ids), marks(events))
    human = _human(events)
    _write_milestones(connection, send_ids, lambda send_id, was: milestones(human[send_id], _only_date(was)))


_SPANS = """
    SELECT {pick}(at) AS at, kind, label, activity_id, send_id, link FROM events WHERE send_id IN {{ids}}
    GROUP BY kind, label, activity_id, send_id, link
"""


def events_of(connection: Connection, send_ids: Collection[int]) -> list[CountedEvent]:
    """The first and the last event of each kind, label and link of these sends: all that first-seen rows and milestones
    depend on.
    """
    return [
        CountedEvent(bulk_sql.micros(row[0]), *row[1:])
        for pick in ("min", "max")
        for row in bulk_sql.select_by_ids(connection, _SPANS.format(pick=pick), send_ids)
    ]


class SendMilestones(NamedTuple):
    first_opened_at: int | None
    last_opened_at: int | None
    clicked_at: int | None


_NOTHING = SendMilestones(None, None, None)


def milestones(events: Iterable[CountedEvent], was: SendMilestones = _NOTHING) -> SendMilestones:
    """The milestones of one send from its human events, merged with the known ones."""
    human = [e for e in events if e.label == TrafficLabel.HUMAN]
    clicks = [e.at for e in human if e.kind == HitKind.CLICK]
    opens = [e.at for e in human if e.kind == HitKind.OPEN] + clicks
    first, last, clicked = ([] if at is None else [at] for at in was)
    return SendMilestones(
        min(opens + first, default=None), max(opens + last, default=None), min(clicks + clicked, default=None)
    )


def _only_date(was: SendMilestones) -> SendMilestones:
    """Milestones that keep only a last open stored as a bare date: all that DELIVERABILITY consent
    leaves of a contact.
    """
    last = was.last_opened_at
    return SendMilestones(None, last if last is not None and last % _DAY == 0 else None, None)


def _human(events: Iterable[CountedEvent]) -> defaultdict[int, list[CountedEvent]]:
    found: defaultdict[int, list[CountedEvent]] = defaultdict(list)
    for event in events:
        if event.send_id is not None and event.label == TrafficLabel.HUMAN:
            found[event.send_id].append(event)
    return found


def _write_milestones(
    connection: Connection, send_ids: Collection[int], anew: Callable[[int, SendMilestones], SendMilestones]
) -> None:
    if not send_ids:
        return
    rows = bulk_sql.select_by_ids(
        connection, "SELECT id, first_opened_at, last_opened_at, clicked_at FROM sends WHERE id IN {ids}", send_ids
    )
    changed = []
    for send_id, *kept in rows:
        was = SendMilestones(*(None if at is None else bulk_sql.micros(at) for at in kept))
        now = anew(send_id, was)
        if now != was:
            changed.append((send_id, *now))
    bulk_sql.set_milestones(connection, changed)


def note_last_date(connection: Connection, opened: dict[int, int]) -> None:
    """Store the date (UTC) of the last open of sends whose contacts allow only that. ``opened``:
    microseconds by send.
    """
    rows = bulk_sql.select_by_ids(
        connection, "SELECT id, first_opened_at, last_opened_at, clicked_at FROM sends WHERE id IN {ids}", opened
    )
    changed = []
    for send_id, first, last, clicked in rows:
        date = opened[send_id] - opened[send_id] % _DAY
        if last is None or bulk_sql.micros(last) < date:
            keep = (
                None if first is None else bulk_sql.micros(first),
                None if clicked is None else bulk_sql.micros(clicked),
            )
            changed.append((send_id, keep[0], date, keep[1]))
    bulk_sql.set_milestones(connection, changed)
