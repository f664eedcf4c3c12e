"""Relabelling of events by the present bot rules, with the counters and credit that depend on them."""

from collections import Counter
from collections.abc import Callable, Iterator
from datetime import datetime
from typing import NamedTuple

from sqlalchemy import select
from sqlalchemy.orm import Session

from campaigns import db
from campaigns.accounts import audit
from campaigns.accounts.actor import Actor, Permission
from campaigns.planning.models import Activity
from tracking.bots import final_labels
from tracking.bots.bursts import BurstCache
from tracking.bots.final_labels import StoredEvent
from tracking.counters import bulk_sql
from tracking.counters.aggregation import LabelChange
from tracking.jobs import lead_conversions
from tracking.models.events import HitKind, TrafficLabel

CHUNK_SIZE = 2_000
_MINUTE = 60_000_000


class RelabelCount(NamedTuple):
    """Key of a count of events that changed from one label to another."""

    activity_id: int
    kind: int
    before: int
    after: int


def relabel(
    actor: Actor,
    since: datetime,
    until: datetime,
    *,
    dry_run: bool = False,
    progress: Callable[[int], None] | None = None,
) -> Counter[RelabelCount]:
    """Relabel the events of a period, and update rollups, first-seen rows, milestones and credit.

    Returns how many events changed from which label to which. Each chunk of ``CHUNK_SIZE`` events of one
    activity is a transaction, so an interrupted run can be repeated. Events within their settle window are
    left alone. A dry run computes the same and stores nothing. ``progress`` gets the number of events done.
    """
    actor.require(Permission.SETTINGS)
    counts, done = Counter[RelabelCount](), 0
    with db.read_only_session() as session:
        activities = list(session.scalars(select(Activity.id).order_by(Activity.id)))
    for activity_id in activities:
        position, burst_cache = (db.to_micros(since), -1), BurstCache()
        while True:
            with db.read_only_session() if dry_run else db.transaction() as session, bulk_sql.gc_paused():
                events, changes = relabel_chunk(
                    session, activity_id, position, db.to_micros(until), burst_cache, dry_run=dry_run
                )
            if not events:
                break
            counts.update(RelabelCount(activity_id, *one) for one in _changed_labels(changes))
            position, done = (events[-1].at, events[-1].id), done + len(events)
            if progress:
                progress(done)
    if not dry_run:
        with db.transaction() as session:
            period = {"since": since.isoformat(), "until": until.isoformat()}
            audit.record(session, actor, "relabel", "events", "", **period, moved=counts.total())
    return counts


def relabel_chunk(
    session: Session, activity_id: int, position: tuple[int, int], until: int, burst_cache: BurstCache, *, dry_run: bool
) -> tuple[list[StoredEvent], list[LabelChange]]:
    """Relabel the next chunk of an activity's events; return the events and their labels by the present rules.

    The chunk starts behind ``position``, an (instant in microseconds, event id) pair, and ends before
    ``until``. A dry run stores nothing. Both lists are empty when no event is left.
    """
    connection = session.connection()
    if not dry_run:
        bulk_sql.lock_counting(connection)
    minute, first, last = (
        bulk_sql.to_driver_instant(connection, at) for at in (position[0] - position[0] % _MINUTE, position[0], until)
    )
    events = final_labels.select_events(
        connection,
        f"activity_id = {activity_id:d} AND {{minute}} >= {{p}} AND at >= {{p}} AND at < {{p}}"
        f" AND (at > {{p}} OR id > {{p}}) AND label <> {TrafficLabel.SETTLING:d}",
        minute,
        first,
        last,
        first,
        position[1],
        limit=CHUNK_SIZE,
        order="{minute}, at, id",
    )
    if dry_run:
        return events, final_labels.compute_label_changes(connection, events, burst_cache)
    changes = final_labels.relabel(connection, events, burst_cache)
    lead_conversions.recredit_relabelled(
        session, [(c.event.send_id, c.event.at) for c in changes if _affects_credit(c)]
    )
    return events, changes


def _changed_labels(changes: list[LabelChange]) -> Iterator[tuple[int, int, int]]:
    """(kind, label before, label after) of each event whose label changed."""
    return ((c.event.kind, c.event.label, c.label) for c in changes if c.label != c.event.label)


def _affects_credit(change: LabelChange) -> bool:
    """Whether a click became human or stopped being human, so that it gains or loses credit."""
    was_and_is_human = (change.event.label == TrafficLabel.HUMAN, change.label == TrafficLabel.HUMAN)
    return change.event.kind == HitKind.CLICK and was_and_is_human[0] != was_and_is_human[1]
