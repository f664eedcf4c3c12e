"""The settle window is over: final labels, and everything that counts them, in one transaction."""

from collections import defaultdict
from collections.abc import Collection, Iterable, Sequence
from datetime import datetime, timedelta
from typing import Any, NamedTuple

from sqlalchemy import Connection, func, select

from campaigns import clock, config, db, setbacks
from campaigns.planning.models import Activity
from campaigns.setbacks import Chore
from tracking import batches, counting, networks
from tracking.batches import micros
from tracking.counting import Change, Counted
from tracking.models import Event, Kind, Label
from tracking.screening import (
    BURST_SECONDS,
    CROWD,
    CROWD_SECONDS,
    FACTS,
    RULES,
    SETTLE_SECONDS,
    Reason,
    final_label,
    is_no_person,
    is_small_print,
)
from tracking.signals import Seen, Surroundings, crowds, last_before, signals


class Logged(NamedTuple):
    """An event as it stands in the log, its instant in microseconds."""

    id: int
    at: int
    kind: int
    label: int
    activity_id: int
    send_id: int | None
    link: int
    reasons: int
    user_agent_id: int
    network: int

    @property
    def seen(self) -> Seen:
        return Seen(self.at, self.kind, self.link, self.reasons, self.user_agent_id, self.network)

    @property
    def counted(self) -> Counted:
        return Counted(self.at, self.kind, self.label, self.activity_id, self.send_id, self.link)

    def labelled(self, label: Label, reasons: int) -> Change:
        return Change(self.id, self.counted, int(label), int(reasons))


_COLUMNS = ", ".join(("id", "{at}", *Logged._fields[2:]))


def logged(
    connection: Connection, where: str, *values: Any, limit: int | None = None, order: str = "at, id"
) -> list[Logged]:
    """Events from the log, oldest first; ``where`` says ``{p}`` for each value."""
    end = "" if limit is None else f" LIMIT {limit:d}"
    sql = f"SELECT {_COLUMNS} FROM events WHERE {where} ORDER BY {order}{end}"  # noqa: S608
    return [Logged._make(row) for row in batches.rows(connection, sql, *values)]


def of_sends(connection: Connection, send_ids: Collection[int]) -> list[Logged]:
    """All events of these sends, in no order."""
    sql = f"SELECT {_COLUMNS} FROM events WHERE send_id IN {{ids}}"  # noqa: S608
    return [Logged._make(row) for row in batches.select_by_ids(connection, sql, send_ids)]


def settle_due(limit: int = 2_000) -> int:
    """Give their final label to events whose settle window is over; how many those were.

    At most ``limit`` of them, oldest first; call again while it returns ``limit``. Harmless when
    run twice or by two processes at once.
    """
    before = db.to_micros(clock.now() - clock.scaled(SETTLE_SECONDS))
    with db.reading() as session:
        later = {int(subject) for subject in setbacks.put_off(session, Chore.SETTLE)}
        if not _due(session.connection(), before, 1, later):
            return 0  # Nobody waits, so nobody's writing is held up.
    with db.transaction() as session, batches.no_garbage_search():
        connection = session.connection()
        batches.lock_counting(connection)
        due = {event.id: event for event in _due(connection, before, limit, later)}

        def settle(ids: Sequence[int]) -> None:
            relabel(connection, [due[one] for one in ids])

        setbacks.carry(session, Chore.SETTLE, list(due), settle)
    return len(due)


def _due(connection: Connection, before: int, limit: int, later: Collection[int]) -> list[Logged]:
    # The label is written out: a parameter would hide from the planner that the index of settling events will do.
    where = f"label = {Label.SETTLING:d} AND at <= {{p}}"
    found = logged(connection, where, batches.instant(connection, before), limit=limit + len(later))
    return [event for event in found if event.id not in later][:limit]


def relabel(connection: Connection, events: Sequence[Logged]) -> list[Change]:
    """Give events, read under ``lock_counting``, the label that the present rules give them, and move everything
    that counts them; what changed, in label or reasons."""
    changes = judged(connection, events)
    if any(event.label != Label.SETTLING for event in events):
        counting.move(connection, changes, RULES)
    else:
        counting.settle(connection, changes, RULES)
    return changes


def judged(connection: Connection, events: Sequence[Logged]) -> list[Change]:
    """The labels that events get by all that is known now."""
    around = _surroundings(connection, events)
    nobody = Surroundings(None, 0, (), (), config.settings().time_scale)
    crowded = _crowded(connection, events)
    changes = []
    for event in events:
        known = around.get(event.send_id, nobody) if event.send_id is not None else nobody
        found = signals(event.seen, known, event.at in crowded.get(event.network, ()))
        changes.append(event.labelled(final_label(found), found))
    return changes


_MANY = 2_000
"""More events than this of one send are somebody hammering on it: only those nearby are looked at."""
_HAMMERED = f"""
    WITH asked (id) AS {{ids}} SELECT id FROM asked
    WHERE (SELECT count(*) FROM (SELECT 1 FROM events WHERE send_id = asked.id LIMIT {_MANY + 1}) AS counted) > {_MANY}
"""  # noqa: S608


def _context(connection: Connection, events: Sequence[Logged]) -> list[Logged]:
    """The other events of the sends of these, in no order; of a send that is hammered on only those of its own
    activity that came about when these did, and not more than ``_MANY`` times five."""
    send_ids = {event.send_id for event in events if event.send_id is not None}
    hammered = {row[0] for row in batches.select_by_ids(connection, _HAMMERED, send_ids)}
    found = of_sends(connection, send_ids - hammered)
    span = clock.scaled(BURST_SECONDS) // timedelta(microseconds=1)
    for send_id in hammered:
        instants = [event.at for event in events if event.send_id == send_id]
        first, last = (batches.instant(connection, at) for at in (min(instants) - span, max(instants) + span))
        # Without the plus PostgreSQL and SQLite might take the index of sends, and read them all.
        near = f"activity_id = {send_id >> 32:d} AND at BETWEEN {{p}} AND {{p}} AND send_id + 0 = {{p}}"
        found += logged(connection, near, first, last, send_id, limit=5 * _MANY)
        found += [event for event in events if event.send_id == send_id]
    return list({event.id: event for event in found}.values()) if hammered else found


def _surroundings(connection: Connection, judged: Sequence[Logged]) -> dict[int, Surroundings]:
    """What is known about each send; one that is gone has its events only."""
    send_ids = {event.send_id for event in judged if event.send_id is not None}
    if not send_ids:
        return {}
    events = defaultdict[int | None, list[Seen]](list)
    for event in _context(connection, judged):
        events[event.send_id].append(event.seen)
    submitted, stayed = _submitted(connection, send_ids), _stayed(connection, send_ids)
    rows = batches.select_by_ids(connection, "SELECT id, sent_at, version_id FROM sends WHERE id IN {ids}", send_ids)
    sends = {row[0]: (None if row[1] is None else micros(row[1]), row[2]) for row in rows}
    links = _links_of(connection, {version_id for _, version_id in sends.values() if version_id is not None})
    scale = config.settings().time_scale
    found = {}
    for send_id in send_ids:
        sent_at, version_id = sends.get(send_id, (None, None))
        many, small_print = links.get(version_id, (0, set()))
        found[send_id] = Surroundings(
            sent_at, many, events[send_id], submitted[send_id], scale, small_print, stayed[send_id]
        )
    return found


def _links_of(connection: Connection, version_ids: Collection[int]) -> dict[int | None, tuple[int, set[int]]]:
    """By version, how many links the mail holds, and which of them are small print."""
    found: dict[int | None, tuple[int, set[int]]] = {}
    for version_id, number, url, label in batches.select_by_ids(
        connection, "SELECT version_id, number, url, label FROM links WHERE version_id IN {ids}", version_ids
    ):
        many, small_print = found.get(version_id, (0, set()))
        found[version_id] = many + 1, small_print | ({number} if is_small_print(url, label) else set())
    return found


def _submitted(connection: Connection, send_ids: Collection[int]) -> dict[int, list[int]]:
    found: defaultdict[int, list[int]] = defaultdict(list)
    for send_id, at in batches.select_by_ids(
        connection, "SELECT send_id, at FROM submissions WHERE send_id IN {ids}", send_ids
    ):
        found[send_id].append(micros(at))
    return found


def _stayed(connection: Connection, send_ids: Collection[int]) -> dict[int, list[int]]:
    """When engaged visits began that these sends' links brought."""
    found: defaultdict[int, list[int]] = defaultdict(list)
    for send_id, at in batches.select_by_ids(
        connection, "SELECT send_id, started_at FROM visits WHERE send_id IN {ids} AND engaged", send_ids
    ):
        found[send_id].append(micros(at))
    return found


def _crowded(connection: Connection, events: Sequence[Logged]) -> dict[int, set[int]]:
    """By network, the instants at which it followed links of many recipients within a minute."""
    clicks = [event for event in events if event.kind == Kind.CLICK]
    if not clicks:
        return {}
    span, at_all = clock.scaled(CROWD_SECONDS), [click.at for click in clicks]
    nearby = [
        # Every activity's; it lets SQLite's index on (activity_id, at) be used.
        Event.activity_id.in_(select(Activity.id)),
        Event.at >= db.from_micros(min(at_all)) - span,
        Event.at <= db.from_micros(max(at_all)) + span,
        Event.kind == Kind.CLICK,
        Event.send_id.is_not(None),
    ]
    # Whoever hammers on a few sends is no crowd, and may have thousands of clicks that nobody needs to look at.
    several = func.count(Event.send_id.distinct()) >= CROWD
    asked = {click.network for click in clicks}
    crowding = [
        network
        for network in connection.scalars(select(Event.network).where(*nearby).group_by(Event.network).having(several))
        if network in asked and not networks.is_shared(network)
    ]
    if not crowding:
        return {}
    found = select(Event.network, Event.at, Event.send_id).where(*nearby, Event.network.in_(crowding))
    rows = sorted((row.network, db.to_micros(row.at), row.send_id) for row in connection.execute(found))
    return crowds(rows, span // timedelta(microseconds=1))


def settle_submitted(connection: Connection, submissions: Iterable[tuple[int, datetime]]) -> int:
    """A form sent shows that a person had clicked: (send, instant) settles the last click before it,
    and the views between, as human at once, whatever they were called before. How many moved."""
    return _settle_led(connection, submissions, (Kind.CLICK, Kind.VIEW), Reason.SUBMITTED)


def settle_engaged(connection: Connection, visits: Iterable[tuple[int, datetime]]) -> int:
    """So does a visit in which somebody stayed: (send, its beginning) settles the last click before it."""
    return _settle_led(connection, visits, (Kind.CLICK,), Reason.STAYED)


def _settle_led(
    connection: Connection, led_to: Iterable[tuple[int, datetime]], kinds: Iterable[Kind], why: Reason
) -> int:
    sent = defaultdict[int, list[int]](list)
    for send_id, at in led_to:
        sent[send_id].append(db.to_micros(at))
    if not sent:
        return 0
    batches.lock_counting(connection)
    events = of_sends(connection, sent)
    of_send: defaultdict[int | None, list[Seen]] = defaultdict(list)
    for event in events:
        of_send[event.send_id].append(event.seen)
    led = {
        (send_id, kind): last_before(instants, of_send[send_id], kind)
        for send_id, instants in sent.items()
        for kind in kinds
    }
    changes = [
        event.labelled(Label.HUMAN, (Reason(event.reasons) & FACTS) | why)
        for event in events
        if event.label != Label.HUMAN
        and not is_no_person(event.reasons)
        and event.at in led.get((event.send_id or 0, Kind(event.kind)), ())
    ]
    counting.move(connection, changes, RULES)
    return len(changes)
