"""All campaigns beside each other, a page at a time."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from zoneinfo import ZoneInfo

from sqlalchemy import Select, select
from sqlalchemy.orm import Session

from campaigns import clock
from campaigns.accounts.actor import Actor, Permission
from campaigns.planning.models import Campaign, CampaignStatus, Channel
from tracking.counts import Counts, total
from tracking.performance import ActivityLine, activity_lines, by_channel
from tracking.series import days, sparks

SPARK_DAYS = 14


@dataclass(frozen=True, slots=True)
class CampaignLine:
    """One campaign with its figures, its channels, and its human opens and clicks of the last days."""

    campaign: Campaign
    counts: Counts
    channels: Sequence[Channel]
    spark: Sequence[int]


def campaigns_like(actor: Actor, status: CampaignStatus | None = None, words: str = "") -> Select[Campaign]:
    """The campaigns that a reader asks for, without order."""
    actor.require(Permission.VIEW)
    query = select(Campaign).where(Campaign.built_in.is_(False))
    if status is not None:
        query = query.where(Campaign.status == status)
    if words:
        query = query.where(Campaign.name.icontains(words, autoescape=True))
    return query


def campaign_lines(session: Session, campaigns: Sequence[Campaign], zone: ZoneInfo) -> list[CampaignLine]:
    """Figures for these campaigns, in five queries for all of them."""
    ids = [campaign.id for campaign in campaigns]
    if not ids:
        return []
    groups: dict[int, list[ActivityLine]] = defaultdict(list)
    for line in activity_lines(session, ids):
        groups[line.campaign_id].append(line)
    recent = sparks(session, ids, days(clock.now(), zone, SPARK_DAYS))
    return [
        CampaignLine(
            campaign,
            total(line.counts for line in groups[campaign.id]),
            [line.channel for line in by_channel(groups[campaign.id])],
            recent[campaign.id],
        )
        for campaign in campaigns
    ]
