"""Queries for the counts of activities within a time window, which all report pages are computed from.

They read counters and small tables, never raw events. A window selects by the time of the event. Mails can also be
selected by the time they were sent (cohort), with everything that happened to them since.
"""

from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field, fields, replace
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import Any

from sqlalchemy import ColumnElement, Float, Select, case, cast, func, literal_column, select, true, union_all
from sqlalchemy.orm import InstrumentedAttribute, Session

from campaigns.capture.models import Form
from campaigns.db import in_ids
from campaigns.delivery.models import SendState
from campaigns.delivery.sends.counters import SendCount, SendFlag
from campaigns.leads.models import Lead
from campaigns.planning.models import Activity, Channel
from tracking.counters import daily
from tracking.counters.periods import ALL_TIME, Window
from tracking.metrics.costs import Cost
from tracking.metrics.counts import ActivityCounts, HitCounts, MailCounts, VisitCounts
from tracking.models.attribution import SUM_EXPRESSIONS, ConversionAttribution, DailyAttribution, TotalAttribution
from tracking.models.conversions import Conversion
from tracking.models.events import HitKind, HitRollup, TrafficLabel
from tracking.models.visits import DailyChannelRollup, DailyVisitRollup, VisitRollup

_NEVER = datetime(1970, 1, 1, tzinfo=UTC)
_QUARTER = timedelta(minutes=15)
_MAX_INLINE_IDS = 500
_NO_COUNTS = ActivityCounts(influenced=0)
WAITING = (SendState.QUEUED, SendState.SENDING, SendState.DEFERRED, SendState.HELD)


@dataclass(frozen=True, slots=True)
class ReportQuery:
    """The time window of a report, and how mails are selected by it."""

    window: Window = ALL_TIME
    cohort: bool = True
    """True: the window selects mails by the time they were sent. False: it selects openers and clickers by the time of
    their first open or click."""


WHOLE_LIFE = ReportQuery()


def within(column: InstrumentedAttribute[Any] | ColumnElement[Any], window: Window) -> list[ColumnElement[bool]]:
    """Return conditions for a column's instant to lie in the window: ``since`` is included, ``until`` is not."""
    bounds = [column >= window.since] if window.since is not None else []
    return [*bounds, column < window.until] if window.until is not None else bounds


@dataclass
class ReportData:
    """Counts by activity id; ``sent`` has the first and last 15-minute bucket in which the relay accepted its mails."""

    counts: dict[int, ActivityCounts]
    hits: "HitTotals"
    sent: dict[int, tuple[datetime, datetime]]
    influenced: dict[Channel | None, int] = field(default_factory=dict)
    """Influenced conversions by channel, and of the whole campaign under None."""


def load_report_data(
    session: Session, campaign_ids: Collection[int], query: ReportQuery = WHOLE_LIFE, *, links: bool = False
) -> ReportData:
    """Return the counts of all activities of these campaigns, in six queries whatever their number.

    ``links`` includes the hits of single links.
    """
    planned = session.execute(_ACTIVITIES.where(id_in(session, Activity.campaign_id, campaign_ids))).all()
    scope = _ActivityScope(
        session, campaign_ids, {row[0]: row[1] for row in planned}, {row[0]: row[2] for row in planned}
    )
    hits = HitTotals(session, scope, query.window, links=links)
    mails, sent = _mail_counts(session, scope, query, hits)
    visits = _visit_counts(session, scope, query.window)
    visited_campaigns = {scope.campaigns[id] for id in visits}
    outcomes, influenced = _outcomes(session, scope, query.window)
    counts = {}
    for id, campaign_id, channel, launched_at, cost, starts_on, ends_on, form_id in planned:
        # 0 only where something is measured (opens of a launched mail, views of a landing page), else None.
        mailed = channel is Channel.EMAIL and (id in mails or launched_at is not None)
        no_hits = HitCounts() if mailed else None
        visited = visits.get(id) or (
            VisitCounts() if campaign_id in visited_campaigns and launched_at is not None else None
        )
        counts[id] = replace(
            outcomes.get(id, _NO_COUNTS),
            mails=mails.get(id) or (MailCounts() if mailed else None),
            opens=hits.hit_counts(id, HitKind.OPEN) or no_hits,
            clicks=hits.hit_counts(id, HitKind.CLICK) or no_hits,
            views=hits.hit_counts(id, HitKind.VIEW) or (HitCounts() if form_id is not None else None),
            visits=visited,
            cost=Cost(cost, starts_on, ends_on, launched_at).amount_within(query.window),
        )
    return ReportData(counts, hits, sent, influenced)


@dataclass(frozen=True, slots=True)
class CompanyReportData:
    """Counts of the whole organisation in a window.

    ``by_activity`` has leads, conversions, visits, costs and, of mails, the audience only, for activities with any of
    them. ``by_goal`` (key of the goal) and ``by_group`` (channel group) include what no activity is known to have
    brought.
    """

    by_activity: Mapping[int, ActivityCounts]
    by_goal: Mapping[str, ActivityCounts]
    by_group: Mapping[int, VisitCounts]


def load_company_data(session: Session, *windows: Window) -> list[CompanyReportData]:
    """Return the organisation's counts for each window, in five queries per window and one for all.

    Each window must have a ``since``.
    """
    planned = session.execute(_ACTIVITIES).all()
    scope = _ActivityScope(session, None, {row[0]: row[1] for row in planned}, {row[0]: row[2] for row in planned})
    costs = [(id, Cost(cost, starts_on, ends_on, at)) for id, _, _, at, cost, starts_on, ends_on, _ in planned]
    return [_company_data(session, scope, costs, window) for window in windows]


def _company_data(
    session: Session, scope: "_ActivityScope", costs: Iterable[tuple[int, Cost]], window: Window
) -> CompanyReportData:
    audience = (
        select(SendCount.activity_id, cast(func.sum(SendCount.count), Float))
        .where(*within(SendCount.bucket, Window(None, window.until)))
        .group_by(SendCount.activity_id)
    )
    mailed = {id: MailCounts(audience=int(number)) for id, number in session.execute(audience)}
    visits, by_group = _company_visits(session, [0, *scope.campaigns], window)
    conversions, by_goal = dict[int | None, ActivityCounts](), defaultdict[str, ActivityCounts](ActivityCounts)
    for id, goal, number, value in session.execute(_conversions_by_goal(window)):
        part = ActivityCounts(conversions=int(number), revenue=value)
        conversions[id] = conversions[id] + part if id in conversions else part
        by_goal[goal] += part
    leads = Counter[int]()
    for id, number in _lead_counts(session, scope, window):
        leads[id] += number
    counts, no_counts = {}, ActivityCounts()
    for id, cost in costs:
        amount = cost.amount_within(window)
        if amount is not None or id in mailed or id in visits or id in leads or id in conversions:
            known = conversions.get(id, no_counts)
            counts[id] = ActivityCounts(
                mails=mailed.get(id),
                visits=visits.get(id),
                leads=leads[id],
                conversions=known.conversions,
                revenue=known.revenue,
                cost=amount,
            )
    return CompanyReportData(counts, by_goal, by_group)


def _company_visits(
    session: Session, activity_ids: Collection[int], window: Window
) -> tuple[dict[int, VisitCounts], dict[int, VisitCounts]]:
    """Return human visits by activity and by channel group; the latter count distinct visitors per activity."""
    rollup, at = daily.visit_source(session, window)
    group_rollup: Any = DailyChannelRollup if rollup is DailyVisitRollup else VisitRollup
    group_at = group_rollup.day if group_rollup is DailyChannelRollup else group_rollup.bucket
    # The activity condition matches every row, but makes the database scan in primary-key order instead of looking
    # rows up through an index.
    by_activity = _visit_sums(
        rollup,
        rollup.activity_id,
        rollup.campaign_visitors,
        at,
        window,
        id_in(session, rollup.activity_id, activity_ids),
    )
    by_group = _visit_sums(group_rollup, group_rollup.channel_group, group_rollup.visitors, group_at, window)
    activity_counts, group_counts = (
        {key: VisitCounts(*map(int, counts)) for key, *counts in session.execute(query)}
        for query in (by_activity, by_group)
    )
    return activity_counts, group_counts


def _visit_sums(
    rollup: Any, key: Any, visitors: Any, at: Any, window: Window, *conditions: ColumnElement[bool]
) -> Select[Any]:
    """Select sums of human visits by a key, in the field order of :class:`VisitCounts`."""
    columns = (rollup.visits, visitors, rollup.engaged, rollup.active_seconds, rollup.pages, rollup.new)
    return (
        select(key, *(cast(func.sum(column), Float) for column in columns))
        .where(*conditions, rollup.label == TrafficLabel.HUMAN, *within(at, window))
        .group_by(key)
    )


def _conversions_by_goal(window: Window) -> Select[Any]:
    return (
        select(Conversion.activity_id, Conversion.goal, cast(func.count(), Float), func.sum(Conversion.value))
        .where(*within(Conversion.at, window))
        .group_by(Conversion.activity_id, Conversion.goal)
    )


_ACTIVITIES = (
    select(
        Activity.id,
        Activity.campaign_id,
        Activity.channel,
        Activity.launched_at,
        Activity.cost,
        Activity.starts_on,
        Activity.ends_on,
        Form.id,
    )
    .outerjoin(Form, Form.activity_id == Activity.id)
    .order_by(Activity.id)
)


@dataclass(frozen=True, slots=True)
class _ActivityScope:
    """The activities of a query, with the campaign and the channel of each."""

    session: Session
    campaign_ids: Collection[int] | None
    """None means all campaigns."""
    campaigns: Mapping[int, int]
    channels: Mapping[int, Channel]

    def contains(self, column: InstrumentedAttribute[Any]) -> ColumnElement[bool]:
        """Return the condition that the column holds one of these activities' ids.

        A list of ids and not a subquery, so that the planner can estimate how few they are.
        """
        if self.campaign_ids is None:
            return true()
        return id_in(self.session, column, self.campaigns)


def id_in(session: Session, column: Any, ids: Collection[int]) -> ColumnElement[bool]:
    """Return the condition that the column is one of the ids.

    On PostgreSQL, and for more than 500 ids, they are bound as one value, so that the statement's text is the same for
    any number and can stay prepared. SQLite chooses its plan by the number of values in a plain IN list.
    """
    if session.get_bind().dialect.name == "postgresql" or len(ids) > _MAX_INLINE_IDS:
        return in_ids(session, column, ids)
    return column.in_(list(ids))  # type: ignore[no-any-return]


_LABEL_INDEX = {TrafficLabel[one.name.upper()].value: place for place, one in enumerate(fields(HitCounts))}
"""Index of the field of :class:`HitCounts` that belongs to a label's stored value."""


class HitTotals:
    """Hit rollups summed by activity, kind and label; with ``links`` also by link number (0 is all links together)."""

    def __init__(self, session: Session, scope: _ActivityScope, window: Window, *, links: bool) -> None:
        self._hits: dict[tuple[int, int, int], list[int]] = {}
        self._unique_sends: dict[tuple[int, int, int], int] = defaultdict(int)
        hits, at = daily.hit_source(session, window)
        query = (
            select(
                hits.activity_id,
                hits.kind,
                hits.link,
                hits.label,
                cast(func.sum(hits.events), Float),
                cast(func.sum(hits.uniques), Float),
            )
            .where(scope.contains(hits.activity_id), *within(at, window))
            .group_by(hits.activity_id, hits.kind, hits.link, hits.label)
        )
        if not links:
            query = query.where(hits.link == 0)
        for activity_id, kind, link, label, events, uniques in session.execute(query):
            key = (activity_id, kind, link)
            self._hits.setdefault(key, [0] * len(_LABEL_INDEX))[_LABEL_INDEX[label]] += int(events)
            if label == TrafficLabel.HUMAN:
                self._unique_sends[key] = int(uniques)

    def hit_counts(self, activity_id: int, kind: HitKind, link: int = 0) -> HitCounts | None:
        """Return the hits of an activity by label; None when there was no hit of this kind and link."""
        numbers = self._hits.get((activity_id, kind, link))
        return None if numbers is None else HitCounts(*numbers)

    def unique_sends(self, activity_id: int, kind: HitKind, link: int = 0) -> int:
        """Return the number of sends whose first human hit of this kind and link lies in the window."""
        return self._unique_sends.get((activity_id, kind, link), 0)


def first_and_last_hit(window: Window) -> tuple[ColumnElement[datetime], ColumnElement[datetime]]:
    """Return scalar subqueries for an activity's first and last 15-minute bucket with hits.

    Two subqueries, since each min or max of its own is read from one end of the index; the counters between are not
    read.
    """
    conditions = [HitRollup.activity_id == Activity.id, *within(HitRollup.bucket, window)]
    first, last = (select(end(HitRollup.bucket)).where(*conditions).scalar_subquery() for end in (func.min, func.max))
    return first, last


def _mail_counts(
    session: Session, scope: _ActivityScope, report_query: ReportQuery, hits: HitTotals
) -> tuple[dict[int, MailCounts], dict[int, tuple[datetime, datetime]]]:
    """Return mail counts by activity, and the first and last bucket in which the relay accepted mails.

    Without ``cohort``, the recipients are those who had the mail by the end of the window, and openers and clickers
    are those whose first open or click lies in the window.
    """
    window = report_query.window if report_query.cohort else Window(None, report_query.window.until)
    key = SendCount.activity_id, SendCount.state, SendCount.flags, SendCount.bucket != _NEVER
    known = [SendCount.bucket != _NEVER] if not report_query.window.is_all_time else []
    query = (
        select(*key, cast(func.sum(SendCount.count), Float), func.min(SendCount.bucket), func.max(SendCount.bucket))
        .where(scope.contains(SendCount.activity_id), *within(SendCount.bucket, window), *known)
        .group_by(*key)
    )
    sums: dict[int, list[int]] = {}
    sent: dict[int, tuple[datetime, datetime]] = {}
    for id, state, marks, _, number, first, last in session.execute(query):
        if not number:
            continue
        of_activity = sums.setdefault(id, [0] * len(_MAIL_FIELDS))
        for index in _mail_field_indexes(state, marks):
            of_activity[index] += int(number)
        if state is SendState.SENT:
            span = sent.get(id, (first, last))
            sent[id] = (min(span[0], first), max(span[1], last))
    mails = {id: MailCounts(*numbers) for id, numbers in sums.items()}
    if not report_query.cohort:
        for id, counts in mails.items():
            openers, clickers = hits.unique_sends(id, HitKind.OPEN), hits.unique_sends(id, HitKind.CLICK)
            mails[id] = replace(counts, openers=openers, clickers=clickers)
    return mails, sent


_MAIL_FIELDS = tuple(one.name for one in fields(MailCounts))


@lru_cache(maxsize=4_096)
def _mail_field_indexes(state: SendState, flag_bits: int) -> tuple[int, ...]:
    """Return the indexes of the fields of :class:`MailCounts` that count a send with this state and these flags."""
    flags = SendFlag(flag_bits)
    delivered, bounced = state is SendState.SENT, state is SendState.BOUNCED
    trackable = delivered and SendFlag.TRACKABLE in flags
    returned = bounced and SendFlag.ACCEPTED in flags
    counted = {
        "audience": True,
        "waiting": state in WAITING,
        "delivered": delivered,
        "returned": returned,
        "refused": bounced and not returned,
        "unknown": state is SendState.UNKNOWN,
        "skipped": state is SendState.SKIPPED,
        "failed": state is SendState.FAILED,
        "cancelled": state is SendState.CANCELLED,
        "trackable": trackable,
        "openers": trackable and SendFlag.OPENED in flags,
        "clickers": trackable and SendFlag.CLICKED in flags,
        "unsubscribers": delivered and SendFlag.UNSUBSCRIBED in flags,
        "complainers": delivered and SendFlag.COMPLAINED in flags,
        "hard": bounced and SendFlag.HARD_BOUNCE in flags,
        "soft": bounced and not flags & (SendFlag.HARD_BOUNCE | SendFlag.POLICY_BOUNCE),
        "blocked": bounced and SendFlag.POLICY_BOUNCE in flags,
    }
    return tuple(place for place, name in enumerate(_MAIL_FIELDS) if counted[name])


def _visit_counts(session: Session, scope: _ActivityScope, window: Window) -> dict[int, VisitCounts]:
    rollup, at = daily.visit_source(session, window)
    query = _visit_sums(
        rollup, rollup.activity_id, rollup.campaign_visitors, at, window, scope.contains(rollup.activity_id)
    )
    return {id: VisitCounts(*map(int, counts)) for id, *counts in session.execute(query)}


def _outcomes(
    session: Session, scope: _ActivityScope, window: Window
) -> tuple[dict[int, ActivityCounts], dict[Channel | None, int]]:
    """Return leads, conversions and credit by activity, and influenced conversions by channel (None: of all)."""
    outcomes: dict[int, ActivityCounts] = {}
    influenced: dict[Channel | None, int] = defaultdict(int)
    for id, sums in _attribution_sums(session, scope, window):
        outcomes[id] = ActivityCounts(
            conversions=int(sums.own),
            revenue=sums.value,
            first_touch=sums.first,
            last_touch=sums.last,
            influenced=int(sums.touched),
            first_touch_revenue=sums.first_value,
            last_touch_revenue=sums.last_value,
        )
        influenced[scope.channels[id]] += int(sums.of_channel)
        influenced[None] += int(sums.of_campaign)
    for id, number in _lead_counts(session, scope, window):
        outcomes[id] = replace(outcomes.get(id, _NO_COUNTS), leads=number)
    return outcomes, influenced


def _attribution_sums(session: Session, scope: _ActivityScope, window: Window) -> Iterable[tuple[int, Any]]:
    """Return sums of attributed conversions by activity. Totals and sums of whole UTC days are read from rollups."""
    source: Any = TotalAttribution if window.is_all_time else _attribution_in_window(scope, window)
    sums: list[Any] = []
    for name in ("value", "first_value", "last_value"):
        sums.append(case((func.sum(getattr(source, f"{name}d")) > 0, func.sum(getattr(source, name)))).label(name))
    for name in ("own", "first", "last", "touched", "of_channel", "of_campaign"):
        sums.append(cast(func.sum(getattr(source, name)), Float).label(name))
    query = select(source.activity_id, *sums).group_by(source.activity_id)
    if window.is_all_time:
        query = query.where(scope.contains(source.activity_id))
    return [(row[0], row) for row in session.execute(query)]


def _attribution_in_window(scope: _ActivityScope, window: Window) -> Any:
    """Return the columns of a union of the daily rollups inside the window and the single rows at its two ends.

    Daily rollups cover UTC days, so a window in another time zone begins and ends within a day.
    """
    first = None if window.since is None else _midnight(window.since + timedelta(days=1, microseconds=-1))
    last = None if window.until is None else _midnight(window.until)
    ends, days = [Window(window.since, first), Window(last, window.until)], True
    if first is not None and last is not None and first >= last:
        ends, days = [window], False
    columns = [getattr(DailyAttribution, name) for name in SUM_EXPRESSIONS]
    row_columns = [literal_column(SUM_EXPRESSIONS[one.key].format(row=""), one.type).label(one.key) for one in columns]
    parts = [
        select(ConversionAttribution.activity_id, *row_columns).where(
            scope.contains(ConversionAttribution.activity_id), *within(ConversionAttribution.at, end)
        )
        for end in ends
        if not end.is_all_time and not (days and end.since == end.until)
    ]
    if days:
        inside = within(DailyAttribution.day, Window(first, last))
        parts.insert(
            0,
            select(DailyAttribution.activity_id, *columns).where(scope.contains(DailyAttribution.activity_id), *inside),
        )
    return union_all(*parts).subquery().c


def _midnight(at: datetime) -> datetime:
    return at.astimezone(UTC).replace(hour=0, minute=0, second=0, microsecond=0)


def _lead_counts(session: Session, scope: _ActivityScope, window: Window) -> Iterable[tuple[int, int]]:
    query = select(Lead.activity_id, func.count()).where(*within(Lead.created_at, window))
    if scope.campaign_ids is None:
        query = query.group_by(Lead.activity_id)
    else:  # Grouped in the order of a covering index on leads.
        campaigns = id_in(session, Lead.campaign_id, scope.campaign_ids)
        query = query.where(campaigns, scope.contains(Lead.activity_id)).group_by(Lead.campaign_id, Lead.activity_id)
    return [(id, number) for id, number in session.execute(query)]


def activity_ids_query(campaign_ids: Collection[int]) -> Select[int]:
    """Select the ids of all activities of these campaigns."""
    return select(Activity.id).where(Activity.campaign_id.in_(campaign_ids))
