"""Performance of campaigns by activity, channel and link, read from counters, milestones and leads.

Raw events are never read. Channel rows and the total are sums of the activities' rows, so they always agree.
"""

from collections import defaultdict
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta

from sqlalchemy import func, null, select
from sqlalchemy.orm import Session

from campaigns import clock
from campaigns.accounts.actor import Actor, Permission
from campaigns.capture.models import Form
from campaigns.content.models import Link
from campaigns.errors import NotFound
from campaigns.i18n import N_
from campaigns.leads.models import Lead
from campaigns.planning.activities import get_activity
from campaigns.planning.models import Activity, ActivityStatus, Campaign, CampaignStatus, Channel, ShortLink
from tracking.counters.periods import Window
from tracking.metrics.counts import ActivityCounts, HitCounts, MailCounts, sum_counts
from tracking.metrics.queries import (
    WHOLE_LIFE,
    HitTotals,
    ReportData,
    ReportQuery,
    first_and_last_hit,
    id_in,
    load_report_data,
)
from tracking.models.events import HitKind, SpoolCheckpoint

_RECENT = timedelta(minutes=30)
_QUARTER = timedelta(minutes=15)
_ENDED_STATUSES = (CampaignStatus.FINISHED, CampaignStatus.CANCELLED)


@dataclass(frozen=True, slots=True)
class ActivityRow:
    """One activity with its counts. Instants are None when nothing was counted."""

    id: int
    campaign_id: int
    title: str
    channel: Channel
    status: ActivityStatus
    launched_at: datetime | None
    version_id: int | None
    landing_page: bool
    counts: ActivityCounts
    first_hit: datetime | None = None
    last_at: datetime | None = None
    """The last hit, or the last mail that the relay accepted, whichever is later."""


@dataclass(frozen=True, slots=True)
class ChannelRow:
    """The activities of one channel: their number and the sum of their counts."""

    channel: Channel
    activities: int
    counts: ActivityCounts


@dataclass(frozen=True, slots=True)
class LinkRow:
    """One tracked link of a launched mail, or one short link.

    For a mail, ``counts`` holds the mail's trackable recipients as the denominator of the link's clickers.
    """

    activity: ActivityRow
    number: int
    label: str
    url: str
    counts: ActivityCounts


@dataclass(frozen=True, slots=True)
class CampaignPerformance:
    """The performance of one campaign; ``as_of`` is the instant at which hits were counted last."""

    campaign: Campaign
    activities: Sequence[ActivityRow]
    links: Sequence[LinkRow]
    as_of: datetime | None
    last_lead_at: datetime | None = None
    counts: ActivityCounts = field(default_factory=ActivityCounts)
    channels: Sequence[ChannelRow] = ()
    query: ReportQuery = WHOLE_LIFE

    @property
    def is_launched(self) -> bool:
        """Whether any activity has been launched."""
        return any(line.launched_at for line in self.activities)

    @property
    def first_at(self) -> datetime | None:
        """The first launch or hit, whichever is earlier."""
        known = [at for line in self.activities for at in (line.first_hit, line.launched_at) if at is not None]
        return min(known, default=None)

    @property
    def last_at(self) -> datetime | None:
        """The last hit or accepted mail of any activity."""
        known = [line.last_at for line in self.activities if line.last_at is not None]
        return max(known, default=None)

    @property
    def is_changing(self) -> bool:
        """Whether something happened within the last 30 minutes, so that figures may change within seconds."""
        since = clock.now() - _RECENT
        recent = [self.last_at, self.last_lead_at, *(line.launched_at for line in self.activities)]
        return any(at is not None and at >= since for at in recent)

    @property
    def is_over(self) -> bool:
        """Whether the campaign is finished or cancelled and nothing has happened for 30 minutes."""
        return self.campaign.status in _ENDED_STATUSES and not self.is_changing


def campaign_performance(
    session: Session, actor: Actor, campaign_id: int, query: ReportQuery = WHOLE_LIFE
) -> CampaignPerformance:
    """Return everything that the campaign's performance page shows for a period, in fourteen queries.

    Raises NotFound when there is no such campaign.
    """
    actor.require(Permission.VIEW)
    campaign = find_campaign(session, campaign_id)
    data = load_report_data(session, [campaign_id], query, links=True)
    activities = _activity_rows(session, [campaign_id], data, query.window)
    return CampaignPerformance(
        campaign,
        activities,
        _link_rows(session, activities, data.hits),
        *_latest_instants(session, campaign_id),
        replace(sum_counts(line.counts for line in activities), influenced=data.influenced.get(None, 0)),
        [
            replace(line, counts=replace(line.counts, influenced=data.influenced.get(line.channel, 0)))
            for line in channel_rows(activities)
        ],
        query,
    )


def campaign_totals(session: Session, actor: Actor, campaign_id: int, query: ReportQuery) -> ActivityCounts:
    """Return the campaign's total counts only, for comparisons with another period or campaign.

    Raises NotFound when there is no such campaign.
    """
    actor.require(Permission.VIEW)
    find_campaign(session, campaign_id)
    data = load_report_data(session, [campaign_id], query)
    return replace(sum_counts(data.counts.values()), influenced=data.influenced.get(None, 0))


def find_campaign(session: Session, campaign_id: int) -> Campaign:
    """Return the campaign. Raises NotFound when there is none with this id, or when it is built in."""
    campaign = session.get(Campaign, campaign_id)
    if campaign is None or campaign.built_in:
        raise NotFound(N_("There is no such campaign."))
    return campaign


def activity_rows(session: Session, campaign_ids: Collection[int]) -> list[ActivityRow]:
    """Return the activities of these campaigns with their counts over their whole life, ordered by id.

    The instants of the first and last hit are left out, because lists of campaigns do not show them.
    """
    return _activity_rows(session, campaign_ids, load_report_data(session, campaign_ids))


def channel_rows(rows: Iterable[ActivityRow]) -> list[ChannelRow]:
    """Sum activity rows by channel; channels without an activity are left out, the order is that of ``Channel``."""
    groups: dict[Channel, list[ActivityRow]] = defaultdict(list)
    for line in rows:
        groups[line.channel].append(line)
    return [
        ChannelRow(channel, len(groups[channel]), sum_counts(line.counts for line in groups[channel]))
        for channel in Channel
        if channel in groups
    ]


def last_counted_at(session: Session) -> datetime | None:
    """Return the instant at which hits were counted last; None before the first."""
    at: datetime | None = session.scalar(select(func.max(SpoolCheckpoint.updated_at)))
    return at


def _latest_instants(session: Session, campaign_id: int) -> tuple[datetime | None, datetime | None]:
    """Return the instants at which hits were counted last and at which the campaign's last lead was created."""
    lead = select(func.max(Lead.created_at)).where(Lead.campaign_id == campaign_id).scalar_subquery()
    counted, lead_at = session.execute(select(func.max(SpoolCheckpoint.updated_at), lead)).one()
    return counted, lead_at


def _activity_rows(
    session: Session, campaign_ids: Collection[int], data: ReportData, window: Window | None = None
) -> list[ActivityRow]:
    """Build the activity rows; with a window, including the instants of the first and last hit within it."""
    hit_span = (null(), null()) if window is None else first_and_last_hit(window)
    query = (
        select(Activity, Form.id, *hit_span)
        .outerjoin(Form, Form.activity_id == Activity.id)
        .where(id_in(session, Activity.campaign_id, campaign_ids))
        .order_by(Activity.id)
    )
    return [
        _activity_row(activity, form_id, data, first, last) for activity, form_id, first, last in session.execute(query)
    ]


def _activity_row(
    activity: Activity, form_id: int | None, data: ReportData, first: datetime | None, last: datetime | None
) -> ActivityRow:
    sent = data.sent.get(activity.id)
    if sent is not None:
        # A counter only knows its 15-minute bucket: the mail may have been accepted at the bucket's end.
        sent_at = min(sent[1] + _QUARTER, clock.now())
        last = sent_at if last is None else max(last, sent_at)
    return ActivityRow(
        activity.id,
        activity.campaign_id,
        activity.title,
        activity.channel,
        activity.status,
        activity.launched_at,
        activity.email_details.version_id if activity.email_details is not None else None,
        form_id is not None,
        data.counts[activity.id],
        first,
        last,
    )


def _link_rows(session: Session, activities: Sequence[ActivityRow], hits: HitTotals) -> list[LinkRow]:
    """Return every link of every launched version and every short link, most clicked first, unclicked ones included."""
    activities_by_version: dict[int, list[ActivityRow]] = defaultdict(list)
    for line in activities:
        if line.version_id is not None:
            activities_by_version[line.version_id].append(line)
    lines = _short_link_rows(session, activities, hits)
    if not activities_by_version:
        return sorted(lines, key=_most_clicked)
    query = select(Link.version_id, Link.number, Link.label, Link.url)  # Columns: no ORM entity is needed.
    for version_id, number, label, url in session.execute(
        query.where(id_in(session, Link.version_id, activities_by_version))
    ):
        for activity in activities_by_version[version_id]:
            trackable = activity.counts.mails.trackable if activity.counts.mails else 0
            counts = ActivityCounts(
                mails=MailCounts(trackable=trackable, clickers=hits.unique_sends(activity.id, HitKind.CLICK, number)),
                clicks=hits.hit_counts(activity.id, HitKind.CLICK, number) or HitCounts(),
            )
            lines.append(LinkRow(activity, number, label, url, counts))
    return sorted(lines, key=_most_clicked)


def _short_link_rows(session: Session, activities: Sequence[ActivityRow], hits: HitTotals) -> list[LinkRow]:
    """Return the short links of activities sent on other platforms. Their recipients are unknown, so only clicks are
    counted, not clickers."""
    lines = {line.id: line for line in activities}
    return [
        LinkRow(
            lines[link.activity_id],
            link.number,
            link.label,
            link.url,
            ActivityCounts(clicks=hits.hit_counts(link.activity_id, HitKind.CLICK, link.number) or HitCounts()),
        )
        for link in session.scalars(
            select(ShortLink)
            .where(id_in(session, ShortLink.activity_id, lines))
            .order_by(ShortLink.activity_id, ShortLink.number)
        )
    ]


def _most_clicked(line: LinkRow) -> tuple[int, int, int, int]:
    clicks = (line.counts.clicks or HitCounts()).human
    return -(line.counts.mails or MailCounts()).clickers, -clicks, line.activity.id, line.number


def link_clicks(session: Session, actor: Actor, activity_id: int) -> list[LinkRow]:
    """Return the links of one activity with their clicks, most clicked first.

    Raises NotFound when there is no such activity.
    """
    actor.require(Permission.VIEW)
    activity = get_activity(session, activity_id)
    data = load_report_data(session, [activity.campaign_id], links=True)
    lines = [line for line in _activity_rows(session, [activity.campaign_id], data) if line.id == activity_id]
    return _link_rows(session, lines, data.hits)
