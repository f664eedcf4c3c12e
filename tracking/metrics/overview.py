"""Overview of the whole organisation: leads by channel and campaign, conversions by goal, direct traffic and trend.

Each figure is given for the chosen period and for the period of the same length before it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

from sqlalchemy import Float, cast, func, select
from sqlalchemy.orm import Session

from campaigns import clock
from campaigns.accounts.actor import Actor, Permission
from campaigns.leads.models import Lead
from campaigns.planning.models import Activity, Campaign, Channel
from tracking.channels.channel_groups import ChannelGroup
from tracking.conversions.goals import goal_names
from tracking.counters.periods import Period, Window
from tracking.metrics.counts import ActivityCounts, VisitCounts, sum_counts
from tracking.metrics.queries import load_company_data, within
from tracking.metrics.series import company_series
from tracking.models.conversions import Conversion
from tracking.models.visits import VisitRollup

DEFAULT_SPAN = timedelta(days=90)
MAX_CAMPAIGNS = 15
MAX_LAUNCHES = 12


@dataclass(frozen=True, slots=True)
class OverviewRow:
    """The counts of a channel, a campaign or a goal in the period and in the period before."""

    key: int | str
    title: str
    now: ActivityCounts
    before: ActivityCounts


@dataclass(frozen=True, slots=True)
class DirectTraffic:
    """Direct visits (channel group DIRECT) and all visits; None when no page script reports visits."""

    direct: ActivityCounts | None
    direct_before: ActivityCounts | None
    all_visits: ActivityCounts | None


@dataclass(frozen=True, slots=True)
class Trend:
    """New leads and conversions per interval; ``starts`` are local instants."""

    whole_days: bool
    starts: Sequence[datetime]
    leads: Sequence[int]
    conversions: Sequence[int]
    launches: Sequence[tuple[int, str]]
    """``(index of the interval, title of the activity)``, oldest first."""


@dataclass(frozen=True, slots=True)
class Overview:
    """The overview of a period; ``now`` and ``before`` are totals of the period and of the one before it."""

    now: ActivityCounts
    before: ActivityCounts
    channels: Sequence[OverviewRow]
    campaigns: Sequence[OverviewRow]
    unlisted_campaigns: int
    """Number of campaigns with fewer leads that are not listed."""
    goals: Sequence[OverviewRow]
    direct_traffic: DirectTraffic
    trend: Trend


def overview(session: Session, actor: Actor, period: Period, zone: ZoneInfo) -> Overview:
    """Return the overview for a period that has a first day."""
    actor.require(Permission.VIEW)
    window, previous_window = period.window(zone), (period.previous or period).window(zone)
    index = _CampaignIndex(session)
    current_data, previous_data = load_company_data(session, window, previous_window)
    now, before = index.planned_only(current_data.by_activity), index.planned_only(previous_data.by_activity)
    campaigns = index.rows(now, before, index.campaign_of, index.names)
    return Overview(
        _organisation_total(now, current_data.by_goal),
        _organisation_total(before, previous_data.by_goal),
        index.rows(now, before, index.channel_of, {channel: channel.label for channel in Channel}),
        campaigns[:MAX_CAMPAIGNS],
        max(0, len(campaigns) - MAX_CAMPAIGNS),
        _goal_rows(session, current_data.by_goal, previous_data.by_goal),
        _direct_traffic(session, current_data.by_group, previous_data.by_group),
        _trend(session, window, zone),
    )


def conversions_by_goal(
    session: Session, since: datetime | None = None, until: datetime | None = None
) -> dict[str, ActivityCounts]:
    """Return conversions and revenue by goal key, with or without a campaign.

    Without ``since`` the last 90 days are counted.
    """
    query = (
        select(Conversion.goal, cast(func.count(), Float), func.sum(Conversion.value))
        .where(*within(Conversion.at, Window(since or clock.now() - DEFAULT_SPAN, until)))
        .group_by(Conversion.goal)
    )
    return {
        goal: ActivityCounts(conversions=int(number), revenue=value) for goal, number, value in session.execute(query)
    }


class _CampaignIndex:
    """Channel and campaign of every activity; built-in campaigns are left out."""

    def __init__(self, session: Session) -> None:
        self.names: dict[int, str] = {}
        self.channel_of: dict[int, Channel] = {}
        self.campaign_of: dict[int, int] = {}
        query = (
            select(Activity.id, Activity.channel, Campaign.id, Campaign.name)
            .join(Campaign, Campaign.id == Activity.campaign_id)
            .where(Campaign.built_in.is_(False))
        )
        for id, channel, campaign_id, name in session.execute(query):
            self.channel_of[id], self.campaign_of[id], self.names[campaign_id] = channel, campaign_id, name

    def planned_only(self, counts: Mapping[int, ActivityCounts]) -> dict[int, ActivityCounts]:
        """Return the counts of planned activities. Those of built-in campaigns (test and system mail) are dropped."""
        return {id: one for id, one in counts.items() if id in self.channel_of}

    def rows(
        self,
        now: Mapping[int, ActivityCounts],
        before: Mapping[int, ActivityCounts],
        group: Mapping[int, Any],
        titles: Mapping[Any, str],
    ) -> list[OverviewRow]:
        """Return one row per group with anything counted, most leads first.

        ``group`` maps activity ids to group keys, ``titles`` maps group keys to titles.
        """
        sums, earlier = _sum_by_group(now, group), _sum_by_group(before, group)
        lines = [
            OverviewRow(key, titles[key], sums.get(key, ActivityCounts()), earlier.get(key, ActivityCounts()))
            for key in {*sums, *earlier}
            if _has_counts(sums.get(key)) or _has_counts(earlier.get(key))
        ]
        return sorted(lines, key=lambda line: (-line.now.leads, -line.now.conversions, -line.before.leads, line.title))


def _sum_by_group(counts: Mapping[int, ActivityCounts], group: Mapping[int, Any]) -> dict[Any, ActivityCounts]:
    groups: dict[Any, list[ActivityCounts]] = {}
    for id, one in counts.items():
        groups.setdefault(group[id], []).append(one)
    return {key: sum_counts(parts) for key, parts in groups.items()}


def _has_counts(counts: ActivityCounts | None) -> bool:
    """Return whether any count that the overview shows is not zero."""
    if counts is None:
        return False
    visits = counts.visits.visits if counts.visits else 0
    audience = counts.mails.audience if counts.mails else 0
    return bool(counts.leads or counts.conversions or counts.cost or visits or audience)


def _organisation_total(counts: Mapping[int, ActivityCounts], goals: Mapping[str, ActivityCounts]) -> ActivityCounts:
    """Return the organisation's total. Conversions without a known campaign are included, hence the sum by goal."""
    total_of_goals = sum_counts(goals.values())
    return replace(sum_counts(counts.values()), conversions=total_of_goals.conversions, revenue=total_of_goals.revenue)


def _goal_rows(
    session: Session, now: Mapping[str, ActivityCounts], before: Mapping[str, ActivityCounts]
) -> list[OverviewRow]:
    names = goal_names(session)
    lines = [
        OverviewRow(key, names.get(key, key), now.get(key, ActivityCounts()), before.get(key, ActivityCounts()))
        for key in {*now, *before}
    ]
    return sorted(lines, key=lambda line: (-line.now.conversions, line.title))


def _direct_traffic(
    session: Session, now: Mapping[int, VisitCounts], before: Mapping[int, VisitCounts]
) -> DirectTraffic:
    if session.scalar(select(VisitRollup.bucket).limit(1)) is None:
        return DirectTraffic(None, None, None)
    return DirectTraffic(
        ActivityCounts(visits=now.get(ChannelGroup.DIRECT, VisitCounts())),
        ActivityCounts(visits=before.get(ChannelGroup.DIRECT, VisitCounts())),
        sum_counts(ActivityCounts(visits=visits) for visits in (*now.values(), VisitCounts())),
    )


def _trend(session: Session, window: Window, zone: ZoneInfo) -> Trend:
    first, last = window.since or clock.now() - DEFAULT_SPAN, min(window.until or clock.now(), clock.now())
    last = max(last, first + timedelta(days=1))
    interval, starts, columns = company_series(
        session, zone, first, last, {"leads": Lead.created_at, "conversions": Conversion.at}
    )
    launches = (
        select(Activity.title, Activity.launched_at)
        .join(Campaign, Campaign.id == Activity.campaign_id)
        .where(Campaign.built_in.is_(False), *within(Activity.launched_at, Window(first, last)))
        .order_by(Activity.launched_at.desc())
        .limit(MAX_LAUNCHES)
    )
    launch_marks = [
        (max(n for n, start in enumerate(starts) if n == 0 or start <= at), title)
        for title, at in session.execute(launches)
        if at is not None
    ]
    return Trend(
        interval.value in ("day", "week"), starts, columns["leads"], columns["conversions"], launch_marks[::-1]
    )
