"""Labels anew: what the present rules say of events whose labels older rules gave; figures and credit follow."""

from collections import Counter
from collections.abc import Callable
from datetime import datetime
from typing import NamedTuple

from sqlalchemy import select

from campaigns import db
from campaigns.accounts import audit
from campaigns.accounts.actor import Actor, Permission
from campaigns.planning.models import Activity
from tracking import batches, conversions, settle
from tracking.counting import Change
from tracking.models import Kind, Label
from tracking.settle import Logged

PORTION = 2_000


class Moved(NamedTuple):
    """Events that went from one label to another."""

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
) -> Counter[Moved]:
    """Compute the labels of events between two instants anew, and move rollups, marks and milestones with
    them; how many went from which label to which.

    Portions of ``PORTION`` events of an activity, a transaction each: harmless to break off and to run
    again. Settling events wait for their own time. A dry run computes the same and keeps nothing.
    """
    actor.require(Permission.SETTINGS)
    moved, done = Counter[Moved](), 0
    with db.reading() as session:
        activities = list(session.scalars(select(Activity.id).order_by(Activity.id)))
    for activity_id in activities:
        after = (db.to_micros(since), -1)
        while events := _portion(activity_id, after, db.to_micros(until), moved, dry_run):
            after, done = (events[-1].at, events[-1].id), done + len(events)
            if progress:
                progress(done)
    if not dry_run:
        with db.transaction() as session:
            period = {"since": since.isoformat(), "until": until.isoformat()}
            audit.record(session, actor, "events.relabelled", "events", "", **period, moved=moved.total())
    return moved


def _portion(activity_id: int, after: tuple[int, int], end: int, moved: Counter[Moved], dry_run: bool) -> list[Logged]:
    with db.transaction() as session, batches.no_garbage_search():
        connection = session.connection()
        batches.lock_counting(connection)
        first, last = (batches.instant(connection, at) for at in (after[0], end))
        events = settle.logged(
            connection,
            f"activity_id = {activity_id:d} AND at >= {{p}} AND at < {{p}} AND (at > {{p}} OR id > {{p}})"
            f" AND label <> {Label.SETTLING:d}",
            first, last, first, after[1], limit=PORTION,
        )  # fmt: skip
        changes = [change for change in settle.relabel(connection, events) if change.label != change.event.label]
        if dry_run:
            session.rollback()
        else:
            conversions.credit_moved(session, [(c.event.send_id, c.event.at) for c in changes if _moves_credit(c)])
    moved.update(Moved(activity_id, change.event.kind, change.event.label, change.label) for change in changes)
    return events


def _moves_credit(change: Change) -> bool:
    """A click became a person's, and may have brought somebody, or stopped being one's."""
    return change.event.kind == Kind.CLICK and Label.HUMAN in (change.event.label, change.label)
