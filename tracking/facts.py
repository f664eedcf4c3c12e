"""Counted facts of campaigns' activities within a window of time: what every page of figures is made of.

Read from counters and from rows that are few, never from raw events. Times are those of what happened; only
mails may also be asked for by the day on which they went out (cohort), with whatever became of them since.
"""

from collections import defaultdict
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

from sqlalchemy import ColumnElement, Float, Select, String, case, cast, func, literal, null, select, union_all
from sqlalchemy.orm import InstrumentedAttribute, Session

from campaigns.capture.models import Form
from campaigns.delivery.models import SendState
from campaigns.delivery.send_counts import Mark, SendCount
from campaigns.leads.models import Lead
from campaigns.planning.models import Activity, Channel
from tracking import day_counts
from tracking.costs import Cost
from tracking.counts import Counts, Hits, Mails, Visits
from tracking.models import Conversion, ConversionTouch, Credit, CreditModel, Kind, Label, Rollup
from tracking.periods import WHOLE, Window

_NEVER = datetime(1970, 1, 1, tzinfo=UTC)
_QUARTER = timedelta(minutes=15)
_FEW = 500
WAITING = (SendState.QUEUED, SendState.SENDING, SendState.DEFERRED, SendState.HELD)


@dataclass(frozen=True, slots=True)
class Asked:
    """What figures are asked for."""

    window: Window = WHOLE
    cohort: bool = True
    """Whether a window chooses mails by when they went out, not openers and clickers by when they acted."""


WHOLE_LIFE = Asked()


def within(column: InstrumentedAttribute[Any] | ColumnElement[Any], window: Window) -> list[ColumnElement[bool]]:
    """That an instant lies in the window."""
    bounds = [column >= window.since] if window.since is not None else []
    return [*bounds, column < window.until] if window.until is not None else bounds


@dataclass
class Facts:
    """Counts by activity; ``sent`` says between which instants the relay took its mails."""

    counts: dict[int, Counts]
    hits: "CountedHits"
    sent: dict[int, tuple[datetime, datetime]]
    influenced: dict[Channel | None, int] = field(default_factory=dict)
    """By channel, and of all together under None."""


def facts(
    session: Session, campaign_ids: Collection[int], asked: Asked = WHOLE_LIFE, *, links: bool = False,
    earned: bool = True,
) -> Facts:  # fmt: skip
    """All that is counted for the activities of these campaigns, in eight queries for all of them; without what they
    ``earned`` by touches, which is the dearest of it, in six."""
    query = (
        select(
            Activity.id, Activity.campaign_id, Activity.channel, Activity.launched_at, Activity.cost,
            Activity.starts_on, Activity.ends_on, Form.id,
        )
        .outerjoin(Form, Form.activity_id == Activity.id)
        .where(Activity.campaign_id.in_(campaign_ids))
        .order_by(Activity.id)
    )  # fmt: skip
    planned = session.execute(query).all()
    these = _These(campaign_ids, {row[0]: row[1] for row in planned}, {row[0]: row[2] for row in planned})
    hits = CountedHits(session, these, asked.window, links=links)
    mails, sent = _mails(session, these, asked, hits)
    visits = _visits(session, these, asked.window)
    visited_campaigns = {these.campaigns[id] for id in visits}
    outcomes, influenced = _outcomes(session, these, asked.window, earned=earned)
    counts = {}
    for id, campaign_id, channel, launched_at, cost, starts_on, ends_on, form_id in planned:
        # Zero is said only of what is measured: opens of a launched mail, views of a landing page.
        mailed = channel is Channel.EMAIL and (id in mails or launched_at is not None)
        nothing = Hits() if mailed else None
        visited = visits.get(id) or (Visits() if campaign_id in visited_campaigns and launched_at is not None else None)
        counts[id] = replace(
            outcomes.get(id, Counts(influenced=0 if earned else None)),
            mails=mails.get(id) or (Mails() if mailed else None),
            opens=hits.of(id, Kind.OPEN) or nothing,
            clicks=hits.of(id, Kind.CLICK) or nothing,
            views=hits.of(id, Kind.VIEW) or (Hits() if form_id is not None else None),
            visits=visited,
            cost=Cost(cost, starts_on, ends_on, launched_at).within(asked.window),
        )
    return Facts(counts, hits, sent, influenced)


@dataclass(frozen=True, slots=True)
class _These:
    """The activities that facts are asked for: which campaign's each is, and of which channel."""

    campaign_ids: Collection[int]
    campaigns: Mapping[int, int]
    channels: Mapping[int, Channel]

    def has(self, column: InstrumentedAttribute[Any]) -> ColumnElement[bool]:
        """That the column names one of them. By their numbers, so that the database knows how few they are."""
        return column.in_(list(self.campaigns) if len(self.campaigns) <= _FEW else ids_of(self.campaign_ids))


class CountedHits:
    """Rollups summed by activity, kind and label; with ``links``, those of single links too."""

    def __init__(self, session: Session, these: _These, window: Window, *, links: bool) -> None:
        self._hits: dict[tuple[int, int, int], Hits] = defaultdict(Hits)
        self._people: dict[tuple[int, int, int], int] = defaultdict(int)
        hits, at = day_counts.hits(session, window)
        query = (
            select(
                hits.activity_id,
                hits.kind,
                hits.link,
                hits.label,
                cast(func.sum(hits.events), Float),
                cast(func.sum(hits.uniques), Float),
            )
            .where(these.has(hits.activity_id), *within(at, window))
            .group_by(hits.activity_id, hits.kind, hits.link, hits.label)
        )
        if not links:
            query = query.where(hits.link == 0)
        for activity_id, kind, link, label, events, uniques in session.execute(query):
            key = (activity_id, kind, link)
            self._hits[key] = self._hits[key].more(Label(label), int(events))
            if label == Label.HUMAN:
                self._people[key] = int(uniques)

    def of(self, activity_id: int, kind: Kind, link: int = 0) -> Hits | None:
        return self._hits.get((activity_id, kind, link))

    def people(self, activity_id: int, kind: Kind, link: int = 0) -> int:
        """Sends whose first human hit of this kind and link lies in the window."""
        return self._people.get((activity_id, kind, link), 0)


def ends(window: Window) -> tuple[ColumnElement[datetime], ColumnElement[datetime]]:
    """Columns beside an activity's: its first and its last 15 minutes with hits. Ends of an index, found without
    reading the counters between them."""
    counted = [Rollup.activity_id == Activity.id, *within(Rollup.bucket, window)]
    first, last = (select(end(Rollup.bucket)).where(*counted).scalar_subquery() for end in (func.min, func.max))
    return first, last


def _mails(
    session: Session, these: _These, asked: Asked, hits: CountedHits
) -> tuple[dict[int, Mails], dict[int, tuple[datetime, datetime]]]:
    """Mails by activity, and between which instants the relay took them.

    By the time of the event, openers and clickers are those of the window among whoever had the mail by its end.
    """
    window = asked.window if asked.cohort else Window(None, asked.window.until)
    key = SendCount.activity_id, SendCount.state, SendCount.marks, SendCount.bucket != _NEVER
    known = [SendCount.bucket != _NEVER] if not asked.window.whole else []
    query = (
        select(*key, cast(func.sum(SendCount.number), Float), func.min(SendCount.bucket), func.max(SendCount.bucket))
        .where(these.has(SendCount.activity_id), *within(SendCount.bucket, window), *known)
        .group_by(*key)
    )
    mails: dict[int, Mails] = {}
    sent: dict[int, tuple[datetime, datetime]] = {}
    for id, state, marks, _, number, first, last in session.execute(query):
        if not number:
            continue
        mails[id] = mails.get(id, Mails()) + _alike(state, Mark(marks), int(number))
        if state is SendState.SENT:
            one = sent.get(id, (first, last))
            sent[id] = (min(one[0], first), max(one[1], last))
    if not asked.cohort:
        for id, found in mails.items():
            openers, clickers = hits.people(id, Kind.OPEN), hits.people(id, Kind.CLICK)
            mails[id] = replace(found, openers=openers, clickers=clickers)
    return mails, sent


def _alike(state: SendState, marks: Mark, number: int) -> Mails:
    arrived, bounced = state is SendState.SENT, state is SendState.BOUNCED
    tracked = arrived and Mark.TRACKABLE in marks
    returned = bounced and Mark.TAKEN in marks
    return Mails(
        audience=number,
        waiting=number if state in WAITING else 0,
        delivered=number if arrived else 0,
        returned=number if returned else 0,
        refused=number if bounced and not returned else 0,
        unknown=number if state is SendState.UNKNOWN else 0,
        skipped=number if state is SendState.SKIPPED else 0,
        failed=number if state is SendState.FAILED else 0,
        cancelled=number if state is SendState.CANCELLED else 0,
        trackable=number if tracked else 0,
        openers=number if tracked and Mark.OPENED in marks else 0,
        clickers=number if tracked and Mark.CLICKED in marks else 0,
        unsubscribers=number if arrived and Mark.UNSUBSCRIBED in marks else 0,
        complainers=number if arrived and Mark.COMPLAINED in marks else 0,
        hard=number if bounced and Mark.HARD in marks else 0,
        soft=number if bounced and not marks & (Mark.HARD | Mark.BLOCKED) else 0,
        blocked=number if bounced and Mark.BLOCKED in marks else 0,
    )


def _visits(session: Session, these: _These, window: Window) -> dict[int, Visits]:
    of, at = day_counts.visits(session, window)
    sums = [
        cast(func.sum(column), Float)
        for column in (of.visits, of.campaign_visitors, of.engaged, of.active_seconds, of.pages, of.new)
    ]
    query = (
        select(of.activity_id, *sums)
        .where(these.has(of.activity_id), of.label == Label.HUMAN, *within(at, window))
        .group_by(of.activity_id)
    )
    return {id: Visits(*map(int, counts)) for id, *counts in session.execute(query)}


def _outcomes(
    session: Session, these: _These, window: Window, *, earned: bool
) -> tuple[dict[int, Counts], dict[Channel | None, int]]:
    """Leads, conversions and credit by activity, and influenced conversions."""
    during, one = within(Conversion.at, window), literal(1.0)
    conversions = (
        select(literal("conversions"), Conversion.activity_id, one, _number(), func.sum(Conversion.value))
        .where(Conversion.campaign_id.in_(these.campaign_ids), *during)
        .group_by(Conversion.activity_id)
    )
    leads = (
        select(literal("leads"), Lead.activity_id, one, _number(), null())
        .where(Lead.campaign_id.in_(these.campaign_ids), *within(Lead.created_at, window))
        .group_by(Lead.activity_id)
    )
    share = cast(Credit.share, Float)
    credit = (
        select(cast(Credit.model, String), Credit.activity_id, share, _number(), func.sum(Conversion.value))
        .join(Conversion, Conversion.id == Credit.conversion_id)
        .where(these.has(Credit.activity_id), *during)
        .group_by(Credit.model, Credit.activity_id, Credit.share)
    )
    outcomes: dict[int | None, Counts] = defaultdict(Counts)
    for what, activity_id, part, number, value in session.execute(
        union_all(conversions, leads, *([credit] if earned else []))
    ):
        outcomes[activity_id] += _outcome(what, part, number, value)
    if not earned:
        return {id: counts for id, counts in outcomes.items() if id is not None}, {}
    touched, influenced = _influenced(session, these, window)
    by_activity = {
        id: replace(outcomes[id], influenced=touched.get(id, 0)) for id in {*outcomes, *touched} if id is not None
    }
    return by_activity, influenced


def _influenced(session: Session, these: _These, window: Window) -> tuple[dict[int, int], dict[Channel | None, int]]:
    """Conversions with a human touch, by activity, by channel and of all together: no sum of the one is the other."""
    touches = select(ConversionTouch.activity_id, ConversionTouch.conversion_id).where(
        these.has(ConversionTouch.activity_id), ConversionTouch.settling.is_(False)
    )
    if not window.whole:
        touches = touches.join(Conversion, Conversion.id == ConversionTouch.conversion_id)
        touches = touches.where(*within(Conversion.at, window))
    known = touches.subquery()
    number = cast(func.count(known.c.conversion_id.distinct()), Float)
    touched = {
        id: int(many) for id, many in session.execute(select(known.c.activity_id, number).group_by(known.c.activity_id))
    }
    of_channel: dict[Channel, list[int]] = defaultdict(list)
    for id, channel in these.channels.items():
        if id in touched:
            of_channel[channel].append(id)
    # Each conversion once, with the channels that touched it.
    by = [func.max(case((known.c.activity_id.in_(ids), 1), else_=0)) for ids in of_channel.values()]
    each = select(*(mark.label(f"of_{n}") for n, mark in enumerate(by))).group_by(known.c.conversion_id).subquery()
    total, *sums = session.execute(select(func.count(), *(cast(func.sum(mark), Float) for mark in each.c))).one()
    return touched, {None: int(total), **{channel: int(many) for channel, many in zip(of_channel, sums, strict=True)}}


def _number() -> ColumnElement[float]:
    return cast(func.count(), Float)


def _outcome(what: str, share: float, number: float, value: Decimal | None) -> Counts:
    if what == "leads":
        return Counts(leads=int(number))
    if what == "conversions":
        return Counts(conversions=int(number), revenue=value)
    part = None if value is None else value * Decimal(str(share))
    if what == CreditModel.FIRST_TOUCH:
        return Counts(first_touch=share * number, first_touch_revenue=part)
    return Counts(last_touch=share * number, last_touch_revenue=part)


def ids_of(campaign_ids: Collection[int]) -> Select[int]:
    return select(Activity.id).where(Activity.campaign_id.in_(campaign_ids))
