"""What happened when: counters of 15 minutes summed to the steps of a chart, in a given time zone.

Steps are cut at local hours and midnights, so a day of 23 or 25 hours is one step, and a zone that is
half an hour off UTC loses nothing: every offset in use is a multiple of 15 minutes.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import Any
from zoneinfo import ZoneInfo

from sqlalchemy import ColumnElement, Float, Select, case, cast, func, select
from sqlalchemy.orm import Session

from campaigns.language import N_
from campaigns.leads.models import Lead
from campaigns.planning.models import Activity
from tracking import day_counts
from tracking.facts import within
from tracking.models import Kind, Label
from tracking.periods import WHOLE, Window

_LEAST_STEPS = 12


class Step(StrEnum):
    QUARTER = "quarter"
    HOUR = "hour"
    DAY = "day"
    WEEK = "week"

    @property
    def label(self) -> str:
        return {
            self.QUARTER: N_("per 15 minutes"),
            self.HOUR: N_("per hour"),
            self.DAY: N_("per day"),
            self.WEEK: N_("per week"),
        }[self]


@dataclass(frozen=True, slots=True)
class Series:
    """Human hits and new leads by step; ``starts`` are the steps' first instants, in the zone."""

    step: Step
    starts: Sequence[datetime]
    opens: Sequence[int]
    clicks: Sequence[int]
    views: Sequence[int]
    leads: Sequence[int]
    visits: Sequence[int] = ()

    @property
    def empty(self) -> bool:
        return not any((*self.opens, *self.clicks, *self.views, *self.leads, *self.visits))


def series(
    session: Session, campaign_id: int, zone: ZoneInfo, first: datetime, last: datetime, *,
    window: Window = WHOLE, labels: Sequence[Label] = (Label.HUMAN,),
) -> Series:  # fmt: skip
    """Opens, clicks, views, leads and visits of a window between two instants, in four queries.

    What lies before the first step or after the last one is counted in that step, so that the
    columns always add up to the campaign's totals.
    """
    step = fitting(last - first)
    starts = cut(first, last, zone, step)
    # By their numbers: behind a subquery the database cannot tell how few they are, and reads the whole table.
    activities = session.scalars(select(Activity.id).where(Activity.campaign_id == campaign_id)).all()
    counted, at = day_counts.hits(session, window, *starts)
    hits = (
        select(counted.kind, _position(at, starts).label("step"), counted.events)
        .where(counted.activity_id.in_(activities), counted.link == 0, counted.label.in_(labels))
        .where(*within(at, window))
        .subquery()
    )
    leads = (
        select(_position(Lead.created_at, starts).label("step"))
        .where(Lead.campaign_id == campaign_id, *within(Lead.created_at, window))
        .subquery()
    )
    visited, began = day_counts.visits(session, window, *starts)
    visits = (
        select(_position(began, starts).label("step"), visited.visits)
        .where(visited.activity_id.in_(activities), visited.label.in_(labels))
        .where(*within(began, window))
        .subquery()
    )
    columns = {kind: [0] * len(starts) for kind in Kind}
    for kind, position, events in session.execute(
        select(hits.c.kind, hits.c.step, cast(func.sum(hits.c.events), Float)).group_by(hits.c.kind, hits.c.step)
    ):
        columns[Kind(kind)][position] = int(events)
    return Series(
        step,
        starts,
        columns[Kind.OPEN],
        columns[Kind.CLICK],
        columns[Kind.VIEW],
        _column(session, select(leads.c.step, func.count()).group_by(leads.c.step), len(starts)),
        _column(
            session, select(visits.c.step, cast(func.sum(visits.c.visits), Float)).group_by(visits.c.step), len(starts)
        ),
    )


def of_company(
    session: Session, zone: ZoneInfo, first: datetime, last: datetime, moments: Mapping[str, Select[Any]]
) -> tuple[Step, list[datetime], dict[str, list[int]]]:
    """Steps from ``first`` to before ``last``, and in each how many of the selected instants lie, a query for each."""
    step = fitting(last - first)
    starts = [start for start in cut(first, last - timedelta(microseconds=1), zone, step) if start >= first] or [first]
    columns = {}
    for name, instants in moments.items():
        at = instants.subquery()
        steps = select(_position(at.c.at, starts).label("step")).subquery()
        columns[name] = _column(session, select(steps.c.step, func.count()).group_by(steps.c.step), len(starts))
    return step, starts, columns


def sparks(session: Session, campaign_ids: Sequence[int], starts: Sequence[datetime]) -> dict[int, list[int]]:
    """Human opens and clicks of each campaign by step, in one query; what is older is left out."""
    counted, at = day_counts.hits(session, WHOLE, *starts)
    hits = (
        select(Activity.campaign_id, _position(at, starts).label("step"), counted.events)
        .join(Activity, Activity.id == counted.activity_id)
        .where(
            Activity.campaign_id.in_(campaign_ids),
            counted.link == 0,
            counted.label == Label.HUMAN,
            counted.kind.in_((Kind.OPEN, Kind.CLICK)),
            at >= starts[0],
        )
        .subquery()
    )
    query = select(hits.c.campaign_id, hits.c.step, cast(func.sum(hits.c.events), Float))
    lines = {campaign_id: [0] * len(starts) for campaign_id in campaign_ids}
    for campaign_id, position, events in session.execute(query.group_by(hits.c.campaign_id, hits.c.step)):
        lines[campaign_id][position] = int(events)
    return lines


def fitting(span: timedelta) -> Step:
    """The finest step that a chart of this span can still show."""
    if span <= timedelta(hours=6):
        return Step.QUARTER
    if span <= timedelta(hours=72):
        return Step.HOUR
    return Step.DAY if span <= timedelta(days=92) else Step.WEEK


def cut(first: datetime, last: datetime, zone: ZoneInfo, step: Step) -> list[datetime]:
    """The starts of all steps from ``first`` to ``last``, at least twelve, in local time."""
    starts = [_floor(first, zone, step)]
    while (following := _after(starts[-1], step)) <= last:
        starts.append(following)
    while len(starts) < _LEAST_STEPS:
        starts.insert(0, _floor(starts[0].astimezone(UTC) - timedelta(microseconds=1), zone, step))
    return starts


def days(last: datetime, zone: ZoneInfo, number: int) -> list[datetime]:
    """The local midnights of the last ``number`` days, the one of ``last`` included."""
    today = last.astimezone(zone).replace(hour=0, minute=0, second=0, microsecond=0, fold=0)
    return [today - timedelta(days=back) for back in reversed(range(number))]


def _floor(at: datetime, zone: ZoneInfo, step: Step) -> datetime:
    local = at.astimezone(zone)
    if step is Step.QUARTER:
        return local.replace(minute=local.minute // 15 * 15, second=0, microsecond=0)
    if step is Step.HOUR:
        return local.replace(minute=0, second=0, microsecond=0)
    midnight = local.replace(hour=0, minute=0, second=0, microsecond=0, fold=0)
    return midnight - timedelta(days=midnight.weekday()) if step is Step.WEEK else midnight


def _after(start: datetime, step: Step) -> datetime:
    """The next step. Clock time moves days; elapsed time moves hours, or a repeated hour would be lost."""
    if step in (Step.DAY, Step.WEEK):
        return start + timedelta(days=7 if step is Step.WEEK else 1)
    length = timedelta(minutes=15) if step is Step.QUARTER else timedelta(hours=1)
    return (start.astimezone(UTC) + length).astimezone(start.tzinfo)


def _position(instant: ColumnElement[datetime] | Any, starts: Sequence[datetime]) -> ColumnElement[int]:
    """The index of the step that an instant lies in, found by the database."""
    if len(starts) == 1:
        return case((instant.is_(None), 0), else_=0)
    later = [(instant >= starts[index], index) for index in range(len(starts) - 1, 0, -1)]
    return case(*later, else_=0)


def _column(session: Session, query: Select[Any, int], length: int) -> list[int]:
    column = [0] * length
    for position, number in session.execute(query):
        column[position] = int(number)
    return column
