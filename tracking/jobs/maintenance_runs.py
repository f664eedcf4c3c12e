"""Maintenance runs ordered by owners: trial of the bot rules, relabelling, counter check, counter repair.

A worker processes a run in chunks. Each chunk stores its findings and the next position in one
transaction, so that an interrupted run resumes and two concurrent workers count nothing twice.
"""

import time
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from campaigns import clock, db
from campaigns.accounts import audit
from campaigns.accounts.actor import Actor, Permission
from campaigns.accounts.models import User
from campaigns.errors import Conflict, Forbidden, NotFound, ValidationFailed, ValidationProblem
from campaigns.i18n import N_
from campaigns.planning.models import Activity
from tracking.bots.bursts import BurstCache
from tracking.bots.rules import RULES
from tracking.counters import aggregation
from tracking.jobs import counter_check, relabel
from tracking.models.events import HitKind, HitRollup, TrafficLabel
from tracking.models.maintenance import MaintenanceKind, MaintenanceRun

AT_MOST = 20.0
"""Seconds that a run may occupy a worker; the next tick continues it."""


def order(
    session: Session, actor: Actor, kind: MaintenanceKind, since: datetime | None = None, until: datetime | None = None
) -> MaintenanceRun:
    """Create a maintenance run; one of labels needs a period.

    Raises ValidationFailed without a valid period, and Conflict while another run is unfinished.
    """
    actor.require(Permission.SETTINGS)
    if kind.is_of_labels and (since is None or until is None or until <= since):
        raise ValidationFailed(ValidationProblem(N_("The last day must not lie before the first."), "until"))
    if not kind.is_of_labels:
        since = until = None
    if running(session) is not None:
        raise Conflict(N_("Another look over the log is still running."))
    made = MaintenanceRun(
        kind=kind,
        since=since,
        until=until,
        rules=RULES,
        total=_events(session, since, until) if since and until else len(counter_check.activities(session)),
        cursor=[0 if kind.is_of_labels else -1, db.to_micros(since) if since else 0, -1],
        results={},
        error="",
        created_by=actor.id,
        created_at=clock.now(),
    )
    session.add(made)
    session.flush()
    period = {"since": since.isoformat(), "until": until.isoformat()} if since and until else {}
    audit.record(session, actor, f"start {kind.value}", "maintenance run", made.id, **period, version=RULES)
    return made


def again(session: Session, actor: Actor, inspection_id: int) -> MaintenanceRun:
    """Create the run that applies the findings of a trial or check: relabelling or counter repair.

    Raises Conflict when the findings contain no difference, or while another run is unfinished.
    """
    actor.require(Permission.SETTINGS)
    seen = inspection(session, inspection_id)
    follows = {MaintenanceKind.TRIAL: MaintenanceKind.RELABEL, MaintenanceKind.CHECK: MaintenanceKind.REPAIR}
    if seen.kind not in follows or not told(session, seen).differs:
        raise Conflict(N_("There is nothing to change."))
    return order(session, actor, follows[seen.kind], seen.since, seen.until)


def inspection(session: Session, inspection_id: int) -> MaintenanceRun:
    """Return the maintenance run. Raises NotFound."""
    found = session.get(MaintenanceRun, inspection_id)
    if found is None:
        raise NotFound(N_("There is no such look over the log."))
    return found


def running(session: Session) -> int | None:
    """Id of the unfinished run, or None."""
    return session.scalar(select(MaintenanceRun.id).where(MaintenanceRun.finished_at.is_(None)).limit(1))


def _events(session: Session, since: datetime, until: datetime) -> int:
    """Number of events with a final label in this period, counted from the start of its 15-minute bucket."""
    first = db.from_micros(aggregation.bucket(db.to_micros(since)))
    return (
        session.scalar(
            select(func.coalesce(func.sum(HitRollup.events), 0)).where(
                HitRollup.bucket >= first,
                HitRollup.bucket < until,
                HitRollup.link == 0,
                HitRollup.label != TrafficLabel.SETTLING,
            )
        )
        or 0
    )


@dataclass(frozen=True, slots=True)
class Chunk:
    """Findings of one chunk, and the position where the next one starts; None after the last chunk."""

    place: list[int] | None
    done: int = 0
    found: Counter[str] = field(default_factory=Counter)


def run(inspection_id: int) -> None:
    """Process chunks of a run for at most ``RUN_SECONDS``. Idempotent, also with concurrent workers."""
    until, crowds = time.monotonic() + AT_MOST, BurstCache()
    while _step(inspection_id, crowds) and time.monotonic() < until:
        pass


def _step(inspection_id: int, crowds: BurstCache) -> bool:
    """Process one chunk; return whether this worker should continue with another one."""
    with db.reading() as session:
        seen = inspection(session, inspection_id)
    if seen.finished_at is not None:
        return False
    portion = None
    if not seen.kind.changes:  # Read-only runs don't block writers.
        with db.reading() as session:
            counter_check.freeze(session)
            portion = _look(session, seen, crowds)
    with db.transaction() as session:
        held = session.scalars(select(MaintenanceRun).where(MaintenanceRun.id == inspection_id).with_for_update()).one()
        if held.finished_at is not None or held.cursor != seen.cursor:
            return False  # Another worker processed this chunk.
        try:
            _orderer(session, held).require(Permission.SETTINGS)
        except (Forbidden, NotFound):
            held.error, held.finished_at = N_("Whoever ordered this may not do so any more."), clock.now()
            return False
        _take(held, portion or _look(session, held, crowds))
        return held.finished_at is None


def _orderer(session: Session, held: MaintenanceRun) -> Actor:
    person = session.get(User, held.created_by) if held.created_by else None
    if person is None or person.locked_at is not None:
        raise NotFound(N_("There is no such person."))
    return Actor.of(person)


def _take(held: MaintenanceRun, portion: Chunk) -> None:
    held.done += portion.done
    held.results = dict(Counter(held.results) + portion.found)
    if portion.place is None:
        held.finished_at = clock.now()
    else:
        held.cursor = portion.place


def _look(session: Session, one: MaintenanceRun, crowds: BurstCache) -> Chunk:
    return _labels(session, one, crowds) if one.kind.is_of_labels else _counters(session, one)


def _labels(session: Session, one: MaintenanceRun, crowds: BurstCache) -> Chunk:
    activity_id, at, event_id = one.cursor
    since, until = (db.to_micros(at) for at in (one.since, one.until) if at is not None)
    while True:
        events, changes = relabel.portion(
            session, activity_id, (at, event_id), until, crowds, dry_run=one.kind is MaintenanceKind.TRIAL
        )
        if events:
            found = Counter(f"{activity_id}:{c.event.kind}:{c.event.label}:{c.label}" for c in changes)
            return Chunk([activity_id, events[-1].at, events[-1].id], len(events), found)
        following = session.scalar(select(func.min(Activity.id)).where(Activity.id > activity_id))
        if following is None:
            return Chunk(None)
        activity_id, at, event_id = following, since, -1


def _counters(session: Session, one: MaintenanceRun) -> Chunk:
    activity_id = next((known for known in counter_check.activities(session) if known > one.cursor[0]), None)
    if activity_id is None:
        return Chunk(None)
    differences = (counter_check.rebuild if one.kind.changes else counter_check.compare)(session, activity_id)
    found = Counter({str(activity_id): len(differences)} if differences else {})
    return Chunk([activity_id, 0, -1], 1, found)


def due(session: Session) -> Sequence[int]:
    """Ids of at most 20 unfinished runs."""
    return session.scalars(select(MaintenanceRun.id).where(MaintenanceRun.finished_at.is_(None)).limit(20)).all()


@dataclass(frozen=True, slots=True)
class LabelDelta:
    """Label counts of an activity's events of one kind: (before, after) for each label."""

    activity_id: int
    title: str
    kind: HitKind
    labels: dict[TrafficLabel, tuple[int, int]]
    moved: int


@dataclass(frozen=True, slots=True)
class MaintenanceReport:
    """Findings of a maintenance run so far."""

    rows: Sequence[LabelDelta]
    counters: Sequence[tuple[int, str, int]]
    """(activity id, title, number of counters that differ), ordered by id."""
    seen: int
    moved: int

    @property
    def differs(self) -> bool:
        return bool(self.moved or self.counters)


LABELS = (TrafficLabel.HUMAN, TrafficLabel.MACHINE, TrafficLabel.SCANNER, TrafficLabel.UNKNOWN)


def told(session: Session, one: MaintenanceRun) -> MaintenanceReport:
    """Build the report of a run: one row per activity and kind of event, rows without changes last."""
    if not one.kind.is_of_labels:
        titles = _titles(session, map(int, one.results))
        counters = [(int(key), titles.get(int(key), ""), number) for key, number in one.results.items()]
        return MaintenanceReport((), sorted(counters), 0, 0)
    cells = defaultdict[tuple[int, int], Counter[tuple[int, int]]](Counter)
    for key, number in one.results.items():
        activity_id, kind, before, after = map(int, key.split(":"))
        cells[activity_id, kind][before, after] = number
    titles = _titles(session, {activity_id for activity_id, _ in cells})
    rows = [_row(activity_id, titles.get(activity_id, ""), kind, cell) for (activity_id, kind), cell in cells.items()]
    rows.sort(key=lambda row: (not row.moved, row.activity_id, row.kind))
    return MaintenanceReport(rows, (), sum(one.results.values()), sum(row.moved for row in rows))


def _row(activity_id: int, title: str, kind: int, cell: Counter[tuple[int, int]]) -> LabelDelta:
    labels = {
        label: (
            sum(number for (before, _), number in cell.items() if before == label),
            sum(number for (_, after), number in cell.items() if after == label),
        )
        for label in LABELS
    }
    moved = sum(number for (before, after), number in cell.items() if before != after)
    return LabelDelta(activity_id, title, HitKind(kind), labels, moved)


def _titles(session: Session, ids: Iterable[int]) -> dict[int, str]:
    rows = session.execute(select(Activity.id, Activity.title).where(Activity.id.in_(list(ids))))
    return {row.id: row.title for row in rows}
