"""The settle window is over: final labels, and everything that counts them, in one transaction."""

from collections import defaultdict
from collections.abc import Collection, Iterable, Sequence
from datetime import datetime, timedelta
from typing import NamedTuple

from sqlalchemy import ColumnElement, Connection, select

from campaigns import clock, config, db, setbacks
from campaigns.setbacks import Chore
from tracking import batches, counting, networks
from tracking.batches import micros
from tracking.counting import Change, Counted
from tracking.models import Event, Kind, Label
from tracking.screening import (
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

_EVENT = (
    Event.id, Event.at, Event.kind, Event.label, Event.activity_id, Event.send_id, Event.link,
    Event.reasons, Event.user_agent_id, Event.network,
)  # fmt: skip


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

    def labelled(self, label: Label, reasons: int) -> Change:
        counted = Counted(self.at, self.kind, self.label, self.activity_id, self.send_id, self.link)
        return Change(self.id, counted, int(label), int(reasons))


def logged(connection: Connection, *where: ColumnElement[bool], limit: int | None = None) -> list[Logged]:
    """Events from the log, oldest first."""
    query = select(*_EVENT).where(*where).order_by(Event.at, Event.id).limit(limit)
    return [Logged._make((row[0], db.to_micros(row[1]), *row[2:])) for row in connection.execute(query)]


def settle_due(limit: int = 2_000) -> int:
    """Give their final label to events whose settle window is over; how many those were.

    At most ``limit`` of them, oldest first; call again while it returns ``limit``. Harmless when
    run twice or by two processes at once.
    """
    before = clock.now() - clock.scaled(SETTLE_SECONDS)
    with db.reading() as session:
        later = [int(subject) for subject in setbacks.put_off(session, Chore.SETTLE)]
        waiting = (Event.label == Label.SETTLING, Event.at <= before, *([Event.id.not_in(later)] if later else ()))
        if not logged(session.connection(), *waiting, limit=1):
            return 0  # Nobody waits, so nobody's writing is held up.
    with db.transaction() as session:
        connection = session.connection()
        batches.lock_counting(connection)
        due = {event.id: event for event in logged(connection, *waiting, limit=limit)}

        def settle(ids: Sequence[int]) -> None:
            counting.move(connection, judged(connection, [due[one] for one in ids]), RULES)

        setbacks.carry(session, Chore.SETTLE, list(due), settle)
    return len(due)


def judged(connection: Connection, events: Sequence[Logged]) -> list[Change]:
    """The labels that events get by all that is known now."""
    around = _surroundings(connection, {event.send_id for event in events if event.send_id is not None})
    nobody = Surroundings(None, 0, (), (), config.settings().time_scale)
    crowded = _crowded(connection, events)
    changes = []
    for event in events:
        known = around.get(event.send_id, nobody) if event.send_id is not None else nobody
        found = signals(event.seen, known, event.at in crowded.get(event.network, ()))
        changes.append(event.labelled(final_label(found), found))
    return changes


def _surroundings(connection: Connection, send_ids: Collection[int]) -> dict[int, Surroundings]:
    """What is known about each send; one that is gone has its events only."""
    if not send_ids:
        return {}
    events = _events_of(connection, send_ids)
    submitted = _submitted(connection, send_ids)
    rows = batches.select_by_ids(connection, "SELECT id, sent_at, version_id FROM sends WHERE id IN {ids}", send_ids)
    sends = {row[0]: (None if row[1] is None else micros(row[1]), row[2]) for row in rows}
    links = _links_of(connection, {version_id for _, version_id in sends.values() if version_id is not None})
    scale = config.settings().time_scale
    found = {}
    for send_id in send_ids:
        sent_at, version_id = sends.get(send_id, (None, None))
        many, small_print = links.get(version_id, (0, set()))
        found[send_id] = Surroundings(sent_at, many, events[send_id], submitted[send_id], scale, small_print)
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


def _events_of(connection: Connection, send_ids: Collection[int]) -> dict[int, list[Seen]]:
    found: defaultdict[int, list[Seen]] = defaultdict(list)
    for send_id, at, *rest in batches.select_by_ids(
        connection,
        "SELECT send_id, {at}, kind, link, reasons, user_agent_id, network FROM events WHERE send_id IN {ids}",
        send_ids,
    ):
        found[send_id].append(Seen(at, *rest))
    return found


def _submitted(connection: Connection, send_ids: Collection[int]) -> dict[int, list[int]]:
    found: defaultdict[int, list[int]] = defaultdict(list)
    for send_id, at in batches.select_by_ids(
        connection, "SELECT send_id, at FROM submissions WHERE send_id IN {ids}", send_ids
    ):
        found[send_id].append(micros(at))
    return found


def _crowded(connection: Connection, events: Sequence[Logged]) -> dict[int, set[int]]:
    """By network, the instants at which it followed links of many recipients within a minute."""
    clicks = [event for event in events if event.kind == Kind.CLICK and not networks.is_shared(event.network)]
    if not clicks:
        return {}
    span, at_all = clock.scaled(CROWD_SECONDS), [click.at for click in clicks]
    nearby = (
        select(Event.network, Event.at, Event.send_id)
        .where(Event.label.in_(list(Label)))  # All of them; it lets the index on (label, at) be used.
        .where(Event.at >= db.from_micros(min(at_all)) - span, Event.at <= db.from_micros(max(at_all)) + span)
        .where(Event.kind == Kind.CLICK, Event.send_id.is_not(None))
        .where(Event.network.in_({click.network for click in clicks}))
        .order_by(Event.network, Event.at)
    )
    rows = ((row.network, db.to_micros(row.at), row.send_id) for row in connection.execute(nearby))
    return crowds(rows, span // timedelta(microseconds=1))


def settle_submitted(connection: Connection, submissions: Iterable[tuple[int, datetime]]) -> int:
    """A form sent shows that a person had clicked: (send, instant) settles the last click before it,
    and the views between, as human at once, whatever they were called before. How many moved."""
    sent = defaultdict[int, list[int]](list)
    for send_id, at in submissions:
        sent[send_id].append(db.to_micros(at))
    if not sent:
        return 0
    batches.lock_counting(connection)
    ids = list(sent)
    events = [
        event
        for start in range(0, len(ids), 500)
        for event in logged(connection, Event.send_id.in_(ids[start : start + 500]))
    ]
    of_send: defaultdict[int | None, list[Seen]] = defaultdict(list)
    for event in events:
        of_send[event.send_id].append(event.seen)
    led = {
        (send_id, kind): last_before(instants, of_send[send_id], kind)
        for send_id, instants in sent.items()
        for kind in (Kind.CLICK, Kind.VIEW)
    }
    changes = [
        event.labelled(Label.HUMAN, (Reason(event.reasons) & FACTS) | Reason.SUBMITTED)
        for event in events
        if event.label != Label.HUMAN
        and not is_no_person(event.reasons)
        and event.at in led.get((event.send_id or 0, Kind(event.kind)), ())
    ]
    counting.move(connection, changes, RULES)
    return len(changes)
