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
from tracking.bots.rules import RULES_VERSION
from tracking.counters import aggregation
from tracking.jobs import counter_check, relabel
from tracking.models.events import HitKind, HitRollup, TrafficLabel
from tracking.models.maintenance import MaintenanceKind, MaintenanceRun

RUN_SECONDS = 20.0
"""Seconds that a run may occupy a worker; the next tick continues it."""


def order_run(
    session: Session, actor: Actor, kind: MaintenanceKind, since: datetime | None = None, until: datetime | None = None
) -> MaintenanceRun:
    """Create a maintenance run; one of labels needs a period.

    Raises ValidationFailed without a valid period, and Conflict while another run is unfinished.
    """
    actor.require(Permission.SETTINGS)
    if kind.is_label_run and (since is None or until is None or until <= since):
        raise ValidationFailed(ValidationProblem(N_("The last day must not lie before the first."), "until"))
    if not kind.is_label_run:
        since = until = None
    if unfinished_run_id(session) is not None:
        raise Conflict(N_("Another look over the log is still running."))
    new_run = MaintenanceRun(
        kind=kind,
        since=since,
        until=until,
        rules=RULES_VERSION,
        total=_count_events(session, since, until) if since and until else len(counter_check.activity_ids(session)),
        cursor=[0 if kind.is_label_run else -1, db.to_micros(since) if since else 0, -1],
        results={},
        error="",
        created_by=actor.id,
        created_at=clock.now(),
    )
    session.add(new_run)
    session.flush()
    period = {"since": since.isoformat(), "until": until.isoformat()} if since and until else {}
    audit.record(session, actor, f"start {kind.value}", "maintenance run", new_run.id, **period, version=RULES_VERSION)
    return new_run


def order_follow_up(session: Session, actor: Actor, run_id: int) -> MaintenanceRun:
    """Create the run that applies the findings of a trial or check: relabelling or counter repair.

    Raises Conflict when the findings contain no difference, or while another run is unfinished.
    """
    actor.require(Permission.SETTINGS)
    finished_run = get_run(session, run_id)
    follow_up_kinds = {MaintenanceKind.TRIAL: MaintenanceKind.RELABEL, MaintenanceKind.CHECK: MaintenanceKind.REPAIR}
    if finished_run.kind not in follow_up_kinds or not report(session, finished_run).has_differences:
        raise Conflict(N_("There is nothing to change."))
    return order_run(session, actor, follow_up_kinds[finished_run.kind], finished_run.since, finished_run.until)


def get_run(session: Session, run_id: int) -> MaintenanceRun:
    """Return the maintenance run. Raises NotFound."""
    maintenance_run = session.get(MaintenanceRun, run_id)
    if maintenance_run is None:
        raise NotFound(N_("There is no such look over the log."))
    return maintenance_run


def unfinished_run_id(session: Session) -> int | None:
    """Id of the unfinished run, or None."""
    return session.scalar(select(MaintenanceRun.id).where(MaintenanceRun.finished_at.is_(None)).limit(1))


def _count_events(session: Session, since: datetime, until: datetime) -> int:
    """Number of events with a final label in this period, counted from the start of its 15-minute bucket."""
    first_bucket = db.from_micros(aggregation.bucket_start(db.to_micros(since)))
    return (
        session.scalar(
            select(func.coalesce(func.sum(HitRollup.events), 0)).where(
                HitRollup.bucket >= first_bucket,
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

    cursor: list[int] | None
    done: int = 0
    results: Counter[str] = field(default_factory=Counter)


def run(run_id: int) -> None:
    """Process chunks of a run for at most ``RUN_SECONDS``. Idempotent, also with concurrent workers."""
    deadline, burst_cache = time.monotonic() + RUN_SECONDS, BurstCache()
    while _run_chunk(run_id, burst_cache) and time.monotonic() < deadline:
        pass


def _run_chunk(run_id: int, burst_cache: BurstCache) -> bool:
    """Process one chunk; return whether this worker should continue with another one."""
    with db.read_only_session() as session:
        snapshot = get_run(session, run_id)
    if snapshot.finished_at is not None:
        return False
    chunk = None
    if not snapshot.kind.writes_changes:  # Read-only runs don't block writers.
        with db.read_only_session() as session:
            counter_check.begin_snapshot(session)
            chunk = _process_chunk(session, snapshot, burst_cache)
    with db.transaction() as session:
        locked = session.scalars(select(MaintenanceRun).where(MaintenanceRun.id == run_id).with_for_update()).one()
        if locked.finished_at is not None or locked.cursor != snapshot.cursor:
            return False  # Another worker processed this chunk.
        try:
            _ordering_actor(session, locked).require(Permission.SETTINGS)
        except (Forbidden, NotFound):
            locked.error, locked.finished_at = N_("Whoever ordered this may not do so any more."), clock.now()
            return False
        _store_chunk(locked, chunk or _process_chunk(session, locked, burst_cache))
        return locked.finished_at is None


def _ordering_actor(session: Session, maintenance_run: MaintenanceRun) -> Actor:
    user = session.get(User, maintenance_run.created_by) if maintenance_run.created_by else None
    if user is None or user.locked_at is not None:
        raise NotFound(N_("There is no such person."))
    return Actor.of_user(user)


def _store_chunk(maintenance_run: MaintenanceRun, chunk: Chunk) -> None:
    maintenance_run.done += chunk.done
    maintenance_run.results = dict(Counter(maintenance_run.results) + chunk.results)
    if chunk.cursor is None:
        maintenance_run.finished_at = clock.now()
    else:
        maintenance_run.cursor = chunk.cursor


def _process_chunk(session: Session, maintenance_run: MaintenanceRun, burst_cache: BurstCache) -> Chunk:
    return (
        _relabel_chunk(session, maintenance_run, burst_cache)
        if maintenance_run.kind.is_label_run
        else _check_counters(session, maintenance_run)
    )


def _relabel_chunk(session: Session, maintenance_run: MaintenanceRun, burst_cache: BurstCache) -> Chunk:
    activity_id, at, event_id = maintenance_run.cursor
    since, until = (db.to_micros(at) for at in (maintenance_run.since, maintenance_run.until) if at is not None)
    while True:
        events, changes = relabel.relabel_chunk(
            session,
            activity_id,
            (at, event_id),
            until,
            burst_cache,
            dry_run=maintenance_run.kind is MaintenanceKind.TRIAL,
        )
        if events:
            transitions = Counter(f"{activity_id}:{c.event.kind}:{c.event.label}:{c.label}" for c in changes)
            return Chunk([activity_id, events[-1].at, events[-1].id], len(events), transitions)
        next_activity_id = session.scalar(select(func.min(Activity.id)).where(Activity.id > activity_id))
        if next_activity_id is None:
            return Chunk(None)
        activity_id, at, event_id = next_activity_id, since, -1


def _check_counters(session: Session, maintenance_run: MaintenanceRun) -> Chunk:
    activity_id = next(
        (known for known in counter_check.activity_ids(session) if known > maintenance_run.cursor[0]), None
    )
    if activity_id is None:
        return Chunk(None)
    differences = (counter_check.rebuild if maintenance_run.kind.writes_changes else counter_check.find_mismatches)(
        session, activity_id
    )
    results = Counter({str(activity_id): len(differences)} if differences else {})
    return Chunk([activity_id, 0, -1], 1, results)


def due_run_ids(session: Session) -> Sequence[int]:
    """Ids of at most 20 unfinished runs."""
    return session.scalars(select(MaintenanceRun.id).where(MaintenanceRun.finished_at.is_(None)).limit(20)).all()


@dataclass(frozen=True, slots=True)
class LabelDelta:
    """Label counts of an activity's events of one kind: (before, after) for each label."""

    activity_id: int
    title: str
    kind: HitKind
    labels: dict[TrafficLabel, tuple[int, int]]
    changed: int


@dataclass(frozen=True, slots=True)
class MaintenanceReport:
    """Findings of a maintenance run so far."""

    rows: Sequence[LabelDelta]
    counters: Sequence[tuple[int, str, int]]
    """(activity id, title, number of counters that differ), ordered by id."""
    events_checked: int
    labels_changed: int

    @property
    def has_differences(self) -> bool:
        return bool(self.labels_changed or self.counters)


LABELS = (TrafficLabel.HUMAN, TrafficLabel.MACHINE, TrafficLabel.SCANNER, TrafficLabel.UNKNOWN)


def report(session: Session, maintenance_run: MaintenanceRun) -> MaintenanceReport:
    """Build the report of a run: one row per activity and kind of event, rows without changes last."""
    if not maintenance_run.kind.is_label_run:
        titles = _activity_titles(session, map(int, maintenance_run.results))
        counters = [(int(key), titles.get(int(key), ""), number) for key, number in maintenance_run.results.items()]
        return MaintenanceReport((), sorted(counters), 0, 0)
    transitions = defaultdict[tuple[int, int], Counter[tuple[int, int]]](Counter)
    for key, number in maintenance_run.results.items():
        activity_id, kind, before, after = map(int, key.split(":"))
        transitions[activity_id, kind][before, after] = number
    titles = _activity_titles(session, {activity_id for activity_id, _ in transitions})
    rows = [
        _label_delta(activity_id, titles.get(activity_id, ""), kind, cell)
        for (activity_id, kind), cell in transitions.items()
    ]
    rows.sort(key=lambda row: (not row.changed, row.activity_id, row.kind))
    return MaintenanceReport(rows, (), sum(maintenance_run.results.values()), sum(row.changed for row in rows))


def _label_delta(activity_id: int, title: str, kind: int, transitions: Counter[tuple[int, int]]) -> LabelDelta:
    labels = {
        label: (
            sum(number for (before, _), number in transitions.items() if before == label),
            sum(number for (_, after), number in transitions.items() if after == label),
        )
        for label in LABELS
    }
    changed = sum(number for (before, after), number in transitions.items() if before != after)
    return LabelDelta(activity_id, title, HitKind(kind), labels, changed)


def _activity_titles(session: Session, ids: Iterable[int]) -> dict[int, str]:
    rows = session.execute(select(Activity.id, Activity.title).where(Activity.id.in_(list(ids))))
    return {row.id: row.title for row in rows}
