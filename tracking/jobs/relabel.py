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

PORTION = 2_000
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
    moved, done = Counter[RelabelCount](), 0
    with db.reading() as session:
        activities = list(session.scalars(select(Activity.id).order_by(Activity.id)))
    for activity_id in activities:
        after, crowds = (db.to_micros(since), -1), BurstCache()
        while True:
            with db.reading() if dry_run else db.transaction() as session, bulk_sql.no_garbage_search():
                events, changes = portion(session, activity_id, after, db.to_micros(until), crowds, dry_run=dry_run)
            if not events:
                break
            moved.update(RelabelCount(activity_id, *one) for one in _labels_of(changes))
            after, done = (events[-1].at, events[-1].id), done + len(events)
            if progress:
                progress(done)
    if not dry_run:
        with db.transaction() as session:
            period = {"since": since.isoformat(), "until": until.isoformat()}
            audit.record(session, actor, "relabel", "events", "", **period, moved=moved.total())
    return moved


def portion(
    session: Session, activity_id: int, after: tuple[int, int], end: int, crowds: BurstCache, *, dry_run: bool
) -> tuple[list[StoredEvent], list[LabelChange]]:
    """Relabel the next chunk of an activity's events; return the events and their labels by the present rules.

    The chunk starts behind ``position``, an (instant in microseconds, event id) pair, and ends before
    ``until``. A dry run stores nothing. Both lists are empty when no event is left.
    """
    connection = session.connection()
    if not dry_run:
        bulk_sql.lock_counting(connection)
    minute, first, last = (bulk_sql.instant(connection, at) for at in (after[0] - after[0] % _MINUTE, after[0], end))
    events = final_labels.logged(
        connection,
        f"activity_id = {activity_id:d} AND {{minute}} >= {{p}} AND at >= {{p}} AND at < {{p}}"
        f" AND (at > {{p}} OR id > {{p}}) AND label <> {TrafficLabel.SETTLING:d}",
        minute,
        first,
        last,
        first,
        after[1],
        limit=PORTION,
        order="{minute}, at, id",
    )
    if dry_run:
        return events, final_labels.judged(connection, events, crowds)
    changes = final_labels.relabel(connection, events, crowds)
    lead_conversions.credit_moved(session, [(c.event.send_id, c.event.at) for c in changes if _moves_credit(c)])
    return events, changes


def _labels_of(changes: list[LabelChange]) -> Iterator[tuple[int, int, int]]:
    """(kind, label before, label after) of each event whose label changed."""
    return ((c.event.kind, c.event.label, c.label) for c in changes if c.label != c.event.label)


def _moves_credit(change: LabelChange) -> bool:
    """Whether a click became human or stopped being human, so that it gains or loses credit."""
    human = (change.event.label == TrafficLabel.HUMAN, change.label == TrafficLabel.HUMAN)
    return change.event.kind == HitKind.CLICK and human[0] != human[1]
