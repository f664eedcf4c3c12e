"""Counted facts of campaigns' activities within a window of time: what every page of figures is made of.

Read from counters and from rows that are few, never from raw events. Times are those of what happened; only
mails may also be asked for by the day on which they went out (cohort), with whatever became of them since.
"""

from collections import defaultdict
from collections.abc import Collection, Iterable
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

from sqlalchemy import ColumnElement, Float, Select, String, cast, func, literal, null, select, union_all
from sqlalchemy.orm import InstrumentedAttribute, Session

from campaigns.capture.models import Form
from campaigns.delivery.models import SendState
from campaigns.delivery.send_counts import Mark, SendCount
from campaigns.leads.models import Lead
from campaigns.planning.models import Activity, Channel
from tracking.costs import Cost
from tracking.counts import Counts, Hits, Mails, Visits
from tracking.models import Conversion, ConversionTouch, Credit, CreditModel, Kind, Label, Rollup
from tracking.periods import WHOLE, Window
from tracking.visit_models import VisitRollup

_NEVER = datetime(1970, 1, 1, tzinfo=UTC)
_QUARTER = timedelta(minutes=15)
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


def facts(session: Session, campaign_ids: Collection[int], asked: Asked = WHOLE_LIFE, *, links: bool = False) -> Facts:
    """All that is counted for the activities of these campaigns, in five queries for all of them."""
    hits = CountedHits(session, campaign_ids, asked.window, links=links)
    mails, sent = _mails(session, campaign_ids, asked, hits)
    visits = _visits(session, campaign_ids, asked.window)
    outcomes, influenced = _outcomes(session, campaign_ids, asked.window)
    query = (
        select(
            Activity.id, Activity.campaign_id, Activity.channel, Activity.launched_at, Activity.cost,
            Activity.starts_on, Activity.ends_on, Form.id,
        )
        .outerjoin(Form, Form.activity_id == Activity.id)
        .where(Activity.campaign_id.in_(campaign_ids))
        .order_by(Activity.id)
    )  # fmt: skip
    counts = {}
    for id, campaign_id, channel, launched_at, cost, starts_on, ends_on, form_id in session.execute(query):
        # Zero is said only of what is measured: opens of a launched mail, views of a landing page.
        mailed = channel is Channel.EMAIL and (id in mails or launched_at is not None)
        nothing = Hits() if mailed else None
        visited = visits.get(id) or (Visits() if campaign_id in visits.campaigns and launched_at is not None else None)
        counts[id] = replace(
            outcomes.get(id, Counts(influenced=0)),
            mails=mails.get(id) or (Mails() if mailed else None),
            opens=hits.of(id, Kind.OPEN) or nothing,
            clicks=hits.of(id, Kind.CLICK) or nothing,
            views=hits.of(id, Kind.VIEW) or (Hits() if form_id is not None else None),
            visits=visited,
            cost=Cost(cost, starts_on, ends_on, launched_at).within(asked.window),
        )
    return Facts(counts, hits, sent, influenced)


class CountedHits:
    """Rollups summed by activity, kind and label; with ``links``, those of single links too."""

    def __init__(self, session: Session, campaign_ids: Collection[int], window: Window, *, links: bool) -> None:
        self._hits: dict[tuple[int, int, int], Hits] = defaultdict(Hits)
        self._people: dict[tuple[int, int, int], int] = defaultdict(int)
        self.span: dict[int, tuple[datetime, datetime]] = {}
        query = (
            select(
                Rollup.activity_id,
                Rollup.kind,
                Rollup.link,
                Rollup.label,
                cast(func.sum(Rollup.events), Float),
                cast(func.sum(Rollup.uniques), Float),
                func.min(Rollup.bucket),
                func.max(Rollup.bucket),
            )
            .where(Rollup.activity_id.in_(ids_of(campaign_ids)), *within(Rollup.bucket, window))
            .group_by(Rollup.activity_id, Rollup.kind, Rollup.link, Rollup.label)
        )
        if not links:
            query = query.where(Rollup.link == 0)
        for activity_id, kind, link, label, events, uniques, first, last in session.execute(query):
            key = (activity_id, kind, link)
            self._hits[key] = self._hits[key].more(Label(label), int(events))
            if label == Label.HUMAN:
                self._people[key] = int(uniques)
            before = self.span.get(activity_id, (first, last))
            self.span[activity_id] = (min(before[0], first), max(before[1], last))

    def of(self, activity_id: int, kind: Kind, link: int = 0) -> Hits | None:
        return self._hits.get((activity_id, kind, link))

    def people(self, activity_id: int, kind: Kind, link: int = 0) -> int:
        """Sends whose first human hit of this kind and link lies in the window."""
        return self._people.get((activity_id, kind, link), 0)


def _mails(
    session: Session, campaign_ids: Collection[int], asked: Asked, hits: CountedHits
) -> tuple[dict[int, Mails], dict[int, tuple[datetime, datetime]]]:
    """Mails by activity, and between which instants the relay took them.

    By the time of the event, openers and clickers are those of the window among whoever had the mail by its end.
    """
    window = asked.window if asked.cohort else Window(None, asked.window.until)
    key = SendCount.activity_id, SendCount.state, SendCount.marks, SendCount.bucket != _NEVER
    known = [SendCount.bucket != _NEVER] if not asked.window.whole else []
    query = (
        select(*key, cast(func.sum(SendCount.number), Float), func.min(SendCount.bucket), func.max(SendCount.bucket))
        .where(SendCount.activity_id.in_(ids_of(campaign_ids)), *within(SendCount.bucket, window), *known)
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


class _Visited(dict[int, Visits]):
    """Visits by activity; ``campaigns`` are those whose visits are measured at all."""

    campaigns: frozenset[int] = frozenset()


def _visits(session: Session, campaign_ids: Collection[int], window: Window) -> _Visited:
    sums = [
        cast(func.sum(column), Float)
        for column in (
            VisitRollup.visits, VisitRollup.campaign_visitors, VisitRollup.engaged, VisitRollup.active_seconds,
            VisitRollup.pages, VisitRollup.new,
        )
    ]  # fmt: skip
    query = (
        select(VisitRollup.activity_id, Activity.campaign_id, *sums)
        .join(Activity, Activity.id == VisitRollup.activity_id)
        .where(Activity.campaign_id.in_(campaign_ids), VisitRollup.label == Label.HUMAN)
        .where(*within(VisitRollup.bucket, window))
        .group_by(VisitRollup.activity_id, Activity.campaign_id)
    )
    rows = session.execute(query).all()
    found = _Visited({row[0]: Visits(*map(int, row[2:])) for row in rows})
    found.campaigns = frozenset(row[1] for row in rows)
    return found


def _outcomes(
    session: Session, campaign_ids: Collection[int], window: Window
) -> tuple[dict[int, Counts], dict[Channel | None, int]]:
    """Leads, conversions and credit by activity, and influenced conversions, in one query."""
    during = within(Conversion.at, window)
    word, one = cast(null(), String), literal(1.0)
    conversions = (
        select(literal("conversions"), Conversion.activity_id, word, one, _number(), func.sum(Conversion.value))
        .where(Conversion.campaign_id.in_(campaign_ids), *during)
        .group_by(Conversion.activity_id)
    )
    leads = (
        select(literal("leads"), Lead.activity_id, word, one, _number(), null())
        .where(Lead.campaign_id.in_(campaign_ids), *within(Lead.created_at, window))
        .group_by(Lead.activity_id)
    )
    share = cast(Credit.share, Float)
    credit = (
        select(cast(Credit.model, String), Credit.activity_id, word, share, _number(), func.sum(Conversion.value))
        .join(Conversion, Conversion.id == Credit.conversion_id)
        .where(Credit.activity_id.in_(ids_of(campaign_ids)), *during)
        .group_by(Credit.model, Credit.activity_id, Credit.share)
    )
    parts = [conversions, leads, credit, *_influenced(campaign_ids, window)]
    outcomes: dict[int | None, Counts] = defaultdict(Counts)
    touched: dict[int, int] = {}
    influenced: dict[Channel | None, int] = {}
    for what, activity_id, channel, part, number, value in session.execute(union_all(*parts)):
        if what != "influenced":
            outcomes[activity_id] += _outcome(what, part, number, value)
        elif activity_id is not None:
            touched[activity_id] = int(number)
        else:
            influenced[Channel(channel) if channel else None] = int(number)
    by_activity = {
        id: replace(outcomes[id], influenced=touched.get(id, 0)) for id in {*outcomes, *touched} if id is not None
    }
    return by_activity, influenced


def _influenced(campaign_ids: Collection[int], window: Window) -> Iterable[Select[Any]]:
    """Conversions with a human touch, by activity, by channel and of all together: no sum of the one is the other."""
    number = cast(func.count(ConversionTouch.conversion_id.distinct()), Float)
    for activity_id, channel in (
        (ConversionTouch.activity_id, None),
        (None, cast(Activity.channel, String)),
        (None, None),
    ):
        query = (
            select(
                literal("influenced"),
                null() if activity_id is None else activity_id,
                cast(null(), String) if channel is None else channel,
                literal(1.0),
                number,
                null(),
            )
            .join(Activity, Activity.id == ConversionTouch.activity_id)
            .where(Activity.campaign_id.in_(campaign_ids), ConversionTouch.settling.is_(False))
        )
        if not window.whole:
            query = query.join(Conversion, Conversion.id == ConversionTouch.conversion_id)
            query = query.where(*within(Conversion.at, window))
        by = activity_id if activity_id is not None else channel
        yield query if by is None else query.group_by(by)


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
