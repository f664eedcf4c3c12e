"""Final labels of events whose settle window has passed, and the counters that depend on them, in one transaction."""

from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from functools import partial
from typing import Any, NamedTuple

from sqlalchemy import Connection

from campaigns import clock, config, db, retries
from campaigns.retries import JobType
from tracking.bots.bursts import BurstCache
from tracking.bots.rules import (
    BURST_SECONDS,
    IMMEDIATE_SIGNALS,
    RULES_VERSION,
    SETTLE_SECONDS,
    LabelReason,
    final_label,
    is_non_human,
    is_small_print,
)
from tracking.bots.signals import HitSignal, SendContext, deferred_signals, last_events_before
from tracking.counters import aggregation, bulk_sql
from tracking.counters.aggregation import CountedEvent, LabelChange
from tracking.counters.bulk_sql import from_driver_instant
from tracking.models.events import HitKind, TrafficLabel


class StoredEvent(NamedTuple):
    """A row of the event log; ``at`` in microseconds."""

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
    def signal(self) -> HitSignal:
        _id, at, kind, _label, _activity_id, _send_id, link, reasons, user_agent_id, network = self
        return _make_hit_signal((at, kind, link, reasons, user_agent_id, network))

    def with_label(self, label: TrafficLabel, reasons: int) -> LabelChange:
        """The change that gives the event this label."""
        id, at, kind, before, activity_id, send_id, link, _reasons, _user_agent_id, _network = self
        return _make_label_change(
            (id, _make_counted_event((at, kind, before, activity_id, send_id, link)), int(label), int(reasons))
        )


# ``_make`` of each class without its Python call: a chunk builds thousands of tuples.
_make_stored_event, _make_hit_signal = partial(tuple.__new__, StoredEvent), partial(tuple.__new__, HitSignal)
_make_counted_event, _make_label_change = partial(tuple.__new__, CountedEvent), partial(tuple.__new__, LabelChange)

_COLUMNS = ", ".join(("id", "{at}", *StoredEvent._fields[2:]))


def select_events(
    connection: Connection, where: str, *values: Any, limit: int | None = None, order: str = "at, id"
) -> list[StoredEvent]:
    """Events from the log, by default oldest first. ``where`` contains ``{p}`` for each value."""
    end = "" if limit is None else f" LIMIT {limit:d}"
    sql = f"SELECT {_COLUMNS} FROM events WHERE {where} ORDER BY {order}{end}"  # noqa: S608
    return list(map(_make_stored_event, bulk_sql.select_rows(connection, sql, *values)))


def select_events_of_sends(
    connection: Connection, send_ids: Collection[int], limit: int | None = None
) -> list[StoredEvent]:
    """All events of these sends, in no particular order."""
    end = "" if limit is None else f" LIMIT {limit:d}"
    sql = f"SELECT {_COLUMNS} FROM events WHERE send_id IN {{ids}}{end}"  # noqa: S608
    return list(map(_make_stored_event, bulk_sql.select_by_ids(connection, sql, send_ids)))


def settle_due(limit: int = 2_000, bursts: BurstCache | None = None) -> int:
    """Give final labels to events whose settle window has passed. Returns how many were processed.

    Processes at most ``limit`` events, oldest first. Call it again, with the same ``bursts``, while it returns
    ``limit``. It may run twice or in two processes at once.
    """
    bursts = bursts or BurstCache()
    cutoff = db.to_micros(clock.now() - clock.scaled(SETTLE_SECONDS))
    with db.read_only_session() as session:
        backed_off = {int(subject) for subject in retries.backed_off_subjects(session, JobType.FINALISE_LABEL)}
        first = _due_events(session.connection(), cutoff, 1, backed_off)
        if not first:
            return 0  # Nothing is due, so the counting lock is not taken.
        # Fills the cache before the lock is taken: reading a busy log takes a while.
        bursts.crowds_around(session.connection(), [event.at for event in first])
    with db.transaction() as session, bulk_sql.gc_paused():
        connection = session.connection()
        bulk_sql.lock_counting(connection)
        due = {event.id: event for event in _due_events(connection, cutoff, limit, backed_off)}

        def settle(ids: Sequence[int]) -> None:
            relabel(connection, [due[one] for one in ids], bursts)

        retries.run_batch(session, JobType.FINALISE_LABEL, list(due), settle)
    return len(due)


def _due_events(connection: Connection, cutoff: int, limit: int, backed_off: Collection[int]) -> list[StoredEvent]:
    # The label is a literal: with a parameter the planner cannot prove that the partial index of settling events
    # applies.
    where = f"label = {TrafficLabel.SETTLING:d} AND at <= {{p}}"
    found = select_events(
        connection, where, bulk_sql.to_driver_instant(connection, cutoff), limit=limit + len(backed_off)
    )
    return [event for event in found if event.id not in backed_off][:limit]


def relabel(connection: Connection, events: Sequence[StoredEvent], bursts: BurstCache) -> list[LabelChange]:
    """Relabel events by the current rules and update all counters. The events must have been read under
    ``lock_counting``. Returns the changes of label or reasons.
    """
    changes = compute_label_changes(connection, events, bursts)
    if any(event.label != TrafficLabel.SETTLING for event in events):
        aggregation.apply_label_changes(connection, changes, RULES_VERSION)
    else:
        aggregation.apply_final_labels(connection, changes, RULES_VERSION)
    return changes


def compute_label_changes(
    connection: Connection, events: Sequence[StoredEvent], bursts: BurstCache
) -> list[LabelChange]:
    """The labels of events by all signals known now."""
    contexts = _send_contexts(connection, events)
    no_context = SendContext(None, 0, (), (), config.settings().time_scale)
    crowded = bursts.crowds_around(connection, [event.at for event in events if event.kind == HitKind.CLICK])
    changes = []
    for event in events:
        context = contexts.get(event.send_id, no_context)
        reasons = deferred_signals(event.signal, context, event.at in crowded.get(event.network, ()))
        changes.append(event.with_label(final_label(reasons), reasons))
    return changes


_MANY = 2_000
"""A send with more events than this is hammered by a program. When many events must be read, only those near the
labelled ones are read of such sends.
"""
_HAMMERED_SQL = f"""
    WITH asked (id) AS {{ids}} SELECT id FROM asked
    WHERE (SELECT count(*) FROM (SELECT 1 FROM events WHERE send_id = asked.id LIMIT {_MANY + 1}) AS counted) > {_MANY}
"""  # noqa: S608


def _events_of_same_sends(connection: Connection, events: Sequence[StoredEvent]) -> list[StoredEvent]:
    """All events of the sends of these events, in no particular order. Of a hammered send only events of its own
    activity near in time, and at most five times ``_MANY``.
    """
    send_ids = {event.send_id for event in events if event.send_id is not None}
    found = select_events_of_sends(connection, send_ids, limit=5 * _MANY + 1)
    if len(found) <= 5 * _MANY:
        return found
    hammered = {row[0] for row in bulk_sql.select_by_ids(connection, _HAMMERED_SQL, send_ids)}
    found = select_events_of_sends(connection, send_ids - hammered)
    span = clock.scaled(BURST_SECONDS) // timedelta(microseconds=1)
    for send_id in hammered:
        instants = [event.at for event in events if event.send_id == send_id]
        first, last = (
            bulk_sql.to_driver_instant(connection, at) for at in (min(instants) - span, max(instants) + span)
        )
        # ``+ 0`` keeps PostgreSQL and SQLite from using the index on send_id, which would read all events of the send.
        near = f"activity_id = {send_id >> 32:d} AND at BETWEEN {{p}} AND {{p}} AND send_id + 0 = {{p}}"
        found += select_events(connection, near, first, last, send_id, limit=5 * _MANY)
        found += [event for event in events if event.send_id == send_id]
    return list({event.id: event for event in found}.values()) if hammered else found


def _send_contexts(connection: Connection, judged: Sequence[StoredEvent]) -> Mapping[int | None, SendContext]:
    """The context of each send. Of a deleted send only its events are known."""
    send_ids = {event.send_id for event in judged if event.send_id is not None}
    if not send_ids:
        return {}
    events = defaultdict[int | None, list[HitSignal]](list)
    for event in _events_of_same_sends(connection, judged):
        events[event.send_id].append(event.signal)
    submitted, stayed = _submission_instants(connection, send_ids), _engaged_visit_starts(connection, send_ids)
    rows = bulk_sql.select_by_ids(connection, "SELECT id, sent_at, version_id FROM sends WHERE id IN {ids}", send_ids)
    sends = {row[0]: (None if row[1] is None else from_driver_instant(row[1]), row[2]) for row in rows}
    links = _links_of(connection, {version_id for _, version_id in sends.values() if version_id is not None})
    scale = config.settings().time_scale
    found = dict[int | None, SendContext]()
    for send_id in send_ids:
        sent_at, version_id = sends.get(send_id, (None, None))
        link_count, small_print = links.get(version_id, (0, set()))
        found[send_id] = SendContext(
            sent_at,
            link_count,
            events[send_id],
            submitted.get(send_id, ()),
            scale,
            small_print,
            stayed.get(send_id, ()),
        )
    return found


def _links_of(connection: Connection, version_ids: Collection[int]) -> dict[int | None, tuple[int, set[int]]]:
    """By message version, the number of links and the numbers of those that are small print."""
    found: dict[int | None, tuple[int, set[int]]] = {}
    for version_id, number, url, label in bulk_sql.select_by_ids(
        connection, "SELECT version_id, number, url, label FROM message_links WHERE version_id IN {ids}", version_ids
    ):
        many, small_print = found.get(version_id, (0, set()))
        found[version_id] = many + 1, small_print | ({number} if is_small_print(url, label) else set())
    return found


def _submission_instants(connection: Connection, send_ids: Collection[int]) -> dict[int, list[int]]:
    """The instants, in microseconds, of form submissions by send."""
    found: defaultdict[int, list[int]] = defaultdict(list)
    for send_id, at in bulk_sql.select_by_ids(
        connection, "SELECT send_id, at FROM submissions WHERE send_id IN {ids}", send_ids
    ):
        found[send_id].append(from_driver_instant(at))
    return found


def _engaged_visit_starts(connection: Connection, send_ids: Collection[int]) -> dict[int, list[int]]:
    """The starts, in microseconds, of engaged visits by the send that brought them."""
    found: defaultdict[int, list[int]] = defaultdict(list)
    for send_id, at in bulk_sql.select_by_ids(
        connection, "SELECT send_id, started_at FROM visits WHERE send_id IN {ids} AND engaged", send_ids
    ):
        found[send_id].append(from_driver_instant(at))
    return found


def confirm_by_submission(connection: Connection, submissions: Iterable[tuple[int, datetime]]) -> int:
    """A submitted form proves a person: label the last click before each (send, instant), and the last view, as human
    at once, whatever their label was. Returns how many events changed.
    """
    return _confirm_last_before(connection, submissions, (HitKind.CLICK, HitKind.VIEW), LabelReason.SUBMITTED)


def confirm_by_engaged_visit(connection: Connection, visits: Iterable[tuple[int, datetime]]) -> int:
    """An engaged visit proves a person: label the last click before each (send, start of visit) as human at once.
    Returns how many events changed.
    """
    return _confirm_last_before(connection, visits, (HitKind.CLICK,), LabelReason.STAYED)


def _confirm_last_before(
    connection: Connection, evidence: Iterable[tuple[int, datetime]], kinds: Iterable[HitKind], reason: LabelReason
) -> int:
    instants_by_send = defaultdict[int, list[int]](list)
    for send_id, at in evidence:
        instants_by_send[send_id].append(db.to_micros(at))
    if not instants_by_send:
        return 0
    bulk_sql.lock_counting(connection)
    events = select_events_of_sends(connection, instants_by_send)
    of_send: defaultdict[int | None, list[HitSignal]] = defaultdict(list)
    for event in events:
        of_send[event.send_id].append(event.signal)
    confirmed = {
        (send_id, kind): last_events_before(instants, of_send[send_id], kind)
        for send_id, instants in instants_by_send.items()
        for kind in kinds
    }
    changes = [
        event.with_label(TrafficLabel.HUMAN, (LabelReason(event.reasons) & IMMEDIATE_SIGNALS) | reason)
        for event in events
        if event.label != TrafficLabel.HUMAN
        and not is_non_human(event.reasons)
        and event.at in confirmed.get((event.send_id or 0, HitKind(event.kind)), ())
    ]
    aggregation.apply_label_changes(connection, changes, RULES_VERSION)
    return len(changes)
