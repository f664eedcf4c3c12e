"""Questions about campaigns, answered from counters, milestones and leads; never from raw events.

Channel rows and the total are sums of the activities' rows, so they cannot disagree.
"""

from collections import defaultdict
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any

from sqlalchemy import Float, Select, String, and_, cast, func, literal, null, or_, select, union_all
from sqlalchemy.orm import Session

from campaigns import clock
from campaigns.accounts.actor import Actor, Permission
from campaigns.capture.models import Form
from campaigns.content.models import Link
from campaigns.delivery.models import Send, SendState
from campaigns.errors import NotFound
from campaigns.language import N_
from campaigns.leads.models import Lead
from campaigns.planning.activities import activity_of
from campaigns.planning.models import Activity, ActivityStatus, Campaign, CampaignStatus, Channel, ShortLink
from tracking.counts import Counts, Hits, Mails, total
from tracking.models import Checkpoint, Conversion, Credit, CreditModel, Kind, Label, Rollup

_RECENT = timedelta(minutes=30)
_WAITING = (SendState.QUEUED, SendState.SENDING, SendState.DEFERRED, SendState.HELD)
_OVER = (CampaignStatus.FINISHED, CampaignStatus.CANCELLED)


@dataclass(frozen=True, slots=True)
class ActivityLine:
    """One activity and what it brought."""

    id: int
    campaign_id: int
    title: str
    channel: Channel
    status: ActivityStatus
    launched_at: datetime | None
    version_id: int | None
    landing_page: bool
    counts: Counts
    first_hit: datetime | None = None
    last_at: datetime | None = None
    """The last hit or the last mail that the relay took."""


@dataclass(frozen=True, slots=True)
class ChannelLine:
    channel: Channel
    activities: int
    counts: Counts


@dataclass(frozen=True, slots=True)
class LinkLine:
    """One tracked link of a launched mail; its clickers stand over the mail's trackable recipients."""

    activity: ActivityLine
    number: int
    label: str
    url: str
    counts: Counts


@dataclass(frozen=True, slots=True)
class Performance:
    """What one campaign brought, as of the last counted hit."""

    campaign: Campaign
    activities: Sequence[ActivityLine]
    links: Sequence[LinkLine]
    as_of: datetime | None
    last_lead_at: datetime | None = None
    counts: Counts = field(default_factory=Counts)

    @property
    def channels(self) -> list[ChannelLine]:
        return by_channel(self.activities)

    @property
    def launched(self) -> bool:
        return any(line.launched_at for line in self.activities)

    @property
    def first_at(self) -> datetime | None:
        """When there was something to count for the first time."""
        known = [at for line in self.activities for at in (line.first_hit, line.launched_at) if at is not None]
        return min(known, default=None)

    @property
    def last_at(self) -> datetime | None:
        known = [line.last_at for line in self.activities if line.last_at is not None]
        return max(known, default=None)

    @property
    def moving(self) -> bool:
        """Whether figures are likely to change within seconds."""
        since = clock.now() - _RECENT
        recent = [self.last_at, self.last_lead_at, *(line.launched_at for line in self.activities)]
        return any(at is not None and at >= since for at in recent)

    @property
    def over(self) -> bool:
        return self.campaign.status in _OVER and not self.moving


def performance(session: Session, actor: Actor, campaign_id: int) -> Performance:
    """Everything the campaign's performance page says, in nine queries. Raises NotFound."""
    actor.require(Permission.VIEW)
    campaign = find_campaign(session, campaign_id)
    clicks = _Hits(session, [campaign_id], links=True)
    activities = _lines(session, [campaign_id], clicks)
    return Performance(
        campaign,
        activities,
        _links(session, activities, clicks),
        as_of(session),
        session.scalar(select(func.max(Lead.created_at)).where(Lead.campaign_id == campaign_id)),
        total(line.counts for line in activities),
    )


def find_campaign(session: Session, campaign_id: int) -> Campaign:
    """The campaign, unless it is the house's own. Raises NotFound."""
    campaign = session.get(Campaign, campaign_id)
    if campaign is None or campaign.built_in:
        raise NotFound(N_("There is no such campaign."))
    return campaign


def activity_lines(session: Session, campaign_ids: Collection[int]) -> list[ActivityLine]:
    """The activities of these campaigns with their counts, in four queries for all of them."""
    return _lines(session, campaign_ids, _Hits(session, campaign_ids, links=False))


def by_channel(lines: Iterable[ActivityLine]) -> list[ChannelLine]:
    """The same lines summed by channel, in the order of the enumeration."""
    groups: dict[Channel, list[ActivityLine]] = defaultdict(list)
    for line in lines:
        groups[line.channel].append(line)
    return [
        ChannelLine(channel, len(groups[channel]), total(line.counts for line in groups[channel]))
        for channel in Channel
        if channel in groups
    ]


def as_of(session: Session) -> datetime | None:
    """When hits were counted last; None before the first."""
    at: datetime | None = session.scalar(select(func.max(Checkpoint.updated_at)))
    return at


def _lines(session: Session, campaign_ids: Collection[int], hits: "_Hits") -> list[ActivityLine]:
    mails = _Sends(session, campaign_ids)
    outcomes = _outcomes(session, campaign_ids)
    query = (
        select(
            Activity.id,
            Activity.campaign_id,
            Activity.title,
            Activity.channel,
            Activity.status,
            Activity.launched_at,
            Activity.version_id,
            Activity.cost,
            Form.id.label("form_id"),
        )
        .outerjoin(Form, Form.activity_id == Activity.id)
        .where(Activity.campaign_id.in_(campaign_ids))
        .order_by(Activity.id)
    )
    return [_line(row, mails, hits, outcomes[row.id]) for row in session.execute(query)]


def _line(row: Any, sends: "_Sends", hits: "_Hits", outcome: Counts) -> ActivityLine:
    """Zero is said only of what is measured: opens of a launched mail, views of a landing page."""
    mails = sends.mails.get(row.id)
    mailed = row.channel is Channel.EMAIL and (mails is not None or row.launched_at is not None)
    nothing = Hits() if mailed else None
    counts = replace(
        outcome,
        mails=mails if mails is not None else Mails() if mailed else None,
        opens=hits.of(row.id, Kind.OPEN) or nothing,
        clicks=hits.of(row.id, Kind.CLICK) or nothing,
        views=hits.of(row.id, Kind.VIEW) or (Hits() if row.form_id is not None else None),
        cost=row.cost,
    )
    first, last = hits.span.get(row.id, (None, None))
    sent_at = sends.last.get(row.id)
    return ActivityLine(
        row.id,
        row.campaign_id,
        row.title,
        row.channel,
        row.status,
        row.launched_at,
        row.version_id,
        row.form_id is not None,
        counts,
        first,
        max((at for at in (last, sent_at) if at is not None), default=None),
    )


class _Sends:
    """Sends counted by activity and state, and when the relay took the last one."""

    def __init__(self, session: Session, campaign_ids: Collection[int]) -> None:
        self.mails: dict[int, Mails] = {}
        self.last: dict[int, datetime] = {}
        for row in session.execute(_sends_by_state(campaign_ids)):
            self.mails[row.activity_id] = self.mails.get(row.activity_id, Mails()) + _in_state(row)
            if row.last_sent_at is not None:
                self.last[row.activity_id] = max(row.last_sent_at, self.last.get(row.activity_id, row.last_sent_at))


def _sends_by_state(campaign_ids: Collection[int]) -> Select[*tuple[Any, ...]]:
    arrived = Send.state == SendState.SENT
    tracked = and_(arrived, Send.trackable)
    opened = or_(Send.first_opened_at.is_not(None), Send.clicked_at.is_not(None))
    return (
        select(
            Send.activity_id,
            Send.state,
            func.count().label("number"),
            func.count(Send.sent_at).label("accepted"),
            func.count().filter(tracked).label("trackable"),
            func.count().filter(tracked, opened).label("openers"),
            func.count().filter(tracked, Send.clicked_at.is_not(None)).label("clickers"),
            func.count().filter(arrived, Send.unsubscribed_at.is_not(None)).label("unsubscribers"),
            func.max(Send.sent_at).label("last_sent_at"),
        )
        .where(Send.activity_id.in_(_ids(campaign_ids)), Send.occasion == "")
        .group_by(Send.activity_id, Send.state)
    )


def _in_state(row: Any) -> Mails:
    state, number = row.state, row.number
    bounced = state is SendState.BOUNCED
    return Mails(
        audience=number,
        waiting=number if state in _WAITING else 0,
        delivered=number if state is SendState.SENT else 0,
        returned=row.accepted if bounced else 0,
        refused=number - row.accepted if bounced else 0,
        unknown=number if state is SendState.UNKNOWN else 0,
        skipped=number if state is SendState.SKIPPED else 0,
        failed=number if state is SendState.FAILED else 0,
        cancelled=number if state is SendState.CANCELLED else 0,
        trackable=row.trackable,
        openers=row.openers,
        clickers=row.clickers,
        unsubscribers=row.unsubscribers,
    )


class _Hits:
    """Rollups summed by activity, kind and label; with ``links``, those of single links too."""

    def __init__(self, session: Session, campaign_ids: Collection[int], *, links: bool) -> None:
        self._hits: dict[tuple[int, int, int], Hits] = defaultdict(Hits)
        self._people: dict[tuple[int, int], int] = defaultdict(int)
        self.span: dict[int, tuple[datetime | None, datetime | None]] = {}
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
            .where(Rollup.activity_id.in_(_ids(campaign_ids)))
            .group_by(Rollup.activity_id, Rollup.kind, Rollup.link, Rollup.label)
        )
        if not links:
            query = query.where(Rollup.link == 0)
        for activity_id, kind, link, label, events, uniques, first, last in session.execute(query):
            key = (activity_id, kind, link)
            self._hits[key] = self._hits[key].more(Label(label), int(events))
            if kind == Kind.CLICK and label == Label.HUMAN:
                self._people[activity_id, link] = int(uniques)
            before = self.span.get(activity_id, (first, last))
            self.span[activity_id] = (min(before[0], first), max(before[1], last))

    def of(self, activity_id: int, kind: Kind, link: int = 0) -> Hits | None:
        return self._hits.get((activity_id, kind, link))

    def clickers(self, activity_id: int, link: int) -> int:
        return self._people.get((activity_id, link), 0)


def _outcomes(session: Session, campaign_ids: Collection[int]) -> dict[int, Counts]:
    """Leads, conversions and credit by activity, in one query."""
    conversions = (
        select(literal("conversions"), Conversion.activity_id, cast(func.count(), Float), func.sum(Conversion.value))
        .where(Conversion.campaign_id.in_(campaign_ids))
        .group_by(Conversion.activity_id)
    )
    leads = (
        select(literal("leads"), Lead.activity_id, cast(func.count(), Float), null())
        .where(Lead.campaign_id.in_(campaign_ids))
        .group_by(Lead.activity_id)
    )
    credit = (
        select(cast(Credit.model, String), Credit.activity_id, cast(func.sum(Credit.share), Float), null())
        .where(Credit.activity_id.in_(_ids(campaign_ids)))
        .group_by(Credit.model, Credit.activity_id)
    )
    outcomes: dict[int, Counts] = defaultdict(Counts)
    for what, activity_id, number, value in session.execute(union_all(conversions, leads, credit)):
        outcomes[activity_id] += _outcome(what, number, value)
    return outcomes


def _outcome(what: str, number: float, value: Decimal | None) -> Counts:
    if what == "leads":
        return Counts(leads=int(number))
    if what == "conversions":
        return Counts(conversions=int(number), revenue=value)
    if what == CreditModel.FIRST_TOUCH:
        return Counts(first_touch=number)
    return Counts(last_touch=number)


def _links(session: Session, activities: Sequence[ActivityLine], hits: _Hits) -> list[LinkLine]:
    """Every link of every launched version and every short link, unclicked ones too, most clicked first."""
    versions = {line.version_id: line for line in activities if line.version_id is not None}
    lines = _short_links(session, activities, hits)
    if not versions:
        return sorted(lines, key=_most_clicked)
    for link in session.scalars(select(Link).where(Link.version_id.in_(versions)).order_by(Link.number)):
        for activity in (line for line in activities if line.version_id == link.version_id):
            trackable = activity.counts.mails.trackable if activity.counts.mails else 0
            clickers = hits.clickers(activity.id, link.number)
            counts = Counts(
                mails=Mails(trackable=trackable, clickers=clickers),
                clicks=hits.of(activity.id, Kind.CLICK, link.number) or Hits(),
            )
            lines.append(LinkLine(activity, link.number, link.label, link.url, counts))
    return sorted(lines, key=_most_clicked)


def _short_links(session: Session, activities: Sequence[ActivityLine], hits: _Hits) -> list[LinkLine]:
    """Links of activities that others send; nobody is known there, so clicks are counted, not clickers."""
    lines = {line.id: line for line in activities}
    return [
        LinkLine(
            lines[link.activity_id],
            link.number,
            link.label,
            link.url,
            Counts(clicks=hits.of(link.activity_id, Kind.CLICK, link.number) or Hits()),
        )
        for link in session.scalars(
            select(ShortLink).where(ShortLink.activity_id.in_(lines)).order_by(ShortLink.activity_id, ShortLink.number)
        )
    ]


def _most_clicked(line: LinkLine) -> tuple[int, int, int, int]:
    clicks = (line.counts.clicks or Hits()).human
    return -(line.counts.mails or Mails()).clickers, -clicks, line.activity.id, line.number


def link_clicks(session: Session, actor: Actor, activity_id: int) -> list[LinkLine]:
    """The links of one activity with their clicks. Raises NotFound."""
    actor.require(Permission.VIEW)
    activity = activity_of(session, activity_id)
    hits = _Hits(session, [activity.campaign_id], links=True)
    lines = [line for line in _lines(session, [activity.campaign_id], hits) if line.id == activity_id]
    return _links(session, lines, hits)


def _ids(campaign_ids: Collection[int]) -> Select[int]:
    return select(Activity.id).where(Activity.campaign_id.in_(campaign_ids))
