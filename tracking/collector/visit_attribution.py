"""Activity attribution of visits: by the send, by the UTM rule, else by the landing page on which the visit began."""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import NamedTuple
from urllib.parse import urlsplit

from sqlalchemy import Connection, select

from campaigns.planning import utm
from campaigns.planning.models import Activity, Campaign, Channel, ShortLink
from tracking.channels.channel_groups import TrafficParameters
from tracking.collector.page_reports import PageReport
from tracking.endpoints import link_targets
from tracking.models.visits import AttributionEvidence

_LANDING_PAGE_PREFIX = "/f/"


class _Candidate(NamedTuple):
    id: int
    channel: Channel
    source: str
    medium: str


class VisitAttributor:
    """Campaigns, activities and short links that the reports of a chunk may name."""

    def __init__(self, connection: Connection, reports: Sequence[PageReport]) -> None:
        self._connection = connection
        self._campaign_by_arrival = self._match_campaigns(
            {report.arrival for report in reports if report.has_explicit_source}
        )
        self._candidates: defaultdict[int, list[_Candidate]] = defaultdict(list)
        self._activity_by_short_link: dict[tuple[int, str, str, str], int] = {}
        self._campaign_ids: dict[int | None, int | None] = {None: None}
        campaign_ids = {campaign_id for campaign_id in self._campaign_by_arrival.values() if campaign_id is not None}
        if campaign_ids:
            self._load_activities(campaign_ids)

    def attribute(self, report: PageReport) -> tuple[int | None, AttributionEvidence]:
        """The activity that brought the report's visit, and the evidence for it."""
        if report.send_id:
            activity_id = report.send_id >> 32
            if self.campaign_of(activity_id) is not None:
                return activity_id, AttributionEvidence.SEND
        campaign_id = self._campaign_by_arrival.get(report.arrival)
        if campaign_id is not None and (found := self._activity_by_utm(campaign_id, report.arrival)) is not None:
            return found, AttributionEvidence.UTM
        if (
            not report.has_explicit_source
            and report.path.startswith(_LANDING_PAGE_PREFIX)
            and not report.is_internal_referral
        ):
            slug = report.path.removeprefix(_LANDING_PAGE_PREFIX).partition("/")[0]
            landing = link_targets.link_target_cache().site_config().landing_pages.get(slug)
            if landing is not None:
                return landing, AttributionEvidence.LANDING_PAGE
        return None, AttributionEvidence.NONE

    def campaign_of(self, activity_id: int | None) -> int | None:
        """The campaign of a planned activity; None for a built-in or unknown one."""
        if activity_id not in self._campaign_ids:
            query = select(Activity.campaign_id).where(Activity.id == activity_id, Activity.built_in.is_(None))
            self._campaign_ids[activity_id] = self._connection.execute(query).scalar()
        return self._campaign_ids[activity_id]

    def _match_campaigns(self, arrivals: Iterable[TrafficParameters]) -> dict[TrafficParameters, int | None]:
        """The campaign that each arrival names: by its id (``utm_id``), else by its name as the UTM rule writes it."""
        naming_campaigns = [arrival for arrival in arrivals if arrival.utm_id or arrival.campaign]
        if not naming_campaigns:
            return {}
        rows = self._connection.execute(
            select(Campaign.id, Campaign.name).where(Campaign.built_in.is_(False)).order_by(Campaign.id)
        ).all()
        ids, names = {str(row.id): row.id for row in rows}, {utm.slugify(row.name): row.id for row in rows}
        return {one: ids.get(one.utm_id) or names.get(utm.slugify(one.campaign)) for one in naming_campaigns}

    def _load_activities(self, campaign_ids: Iterable[int]) -> None:
        query = select(Activity.id, Activity.campaign_id, Activity.channel, Activity.url).where(
            Activity.campaign_id.in_(list(campaign_ids)), Activity.built_in.is_(None)
        )
        for id, campaign_id, channel, url in self._connection.execute(query.order_by(Activity.id)):
            self._campaign_ids[id] = campaign_id
            self._candidates[campaign_id].append(
                _Candidate(id, channel, utm.source(channel, url), utm.MEDIUM_BY_CHANNEL[channel])
            )
        links = select(ShortLink.activity_id, ShortLink.url, ShortLink.utm)
        links = links.where(ShortLink.activity_id.in_(self._campaign_ids)).order_by(ShortLink.id)
        for activity_id, url, added in self._connection.execute(links):
            # As visits report it: UTM parameters in the link's own URL take precedence, right or wrong.
            values = utm.parse_query(urlsplit(utm.append_query(url, added).lower()).query)
            source, medium, content = (values.get(f"utm_{name}", "") for name in ("source", "medium", "content"))
            self._activity_by_short_link[self._campaign_ids[activity_id] or 0, source, medium, content] = activity_id

    def _activity_by_utm(self, campaign_id: int, arrival: TrafficParameters) -> int | None:
        """The activity whose short link has the same UTM values; else the first activity of the campaign that matches
        by source and medium, by medium, or by channel.
        """
        by_link = self._activity_by_short_link.get((campaign_id, arrival.source, arrival.medium, arrival.content))
        if by_link is not None:
            return by_link
        candidates = self._candidates[campaign_id]
        channel = arrival.group.channel
        for fits in (
            [one.id for one in candidates if (one.source, one.medium) == (arrival.source, arrival.medium)],
            [one.id for one in candidates if one.medium == arrival.medium],
            [one.id for one in candidates if one.channel is channel],
        ):
            if fits:
                return fits[0]
        return None
