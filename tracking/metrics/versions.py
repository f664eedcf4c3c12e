"""Version strings of campaigns' metrics, checked every second while a report page is open to detect changes."""

import hashlib
from collections import defaultdict
from collections.abc import Collection, Mapping
from typing import Any

from sqlalchemy import Select, bindparam, case, func, literal, select, union_all
from sqlalchemy.orm import Session

from campaigns.delivery.models import SendState
from campaigns.delivery.sends.counters import SendCount
from campaigns.leads.models import Lead
from campaigns.planning.models import Activity, ActivityStatus, Campaign
from tracking.models.attribution import TotalAttribution
from tracking.models.events import TotalHitRollup
from tracking.models.visits import TotalVisitRollup

_SENDING_STATUSES = (ActivityStatus.LIVE, ActivityStatus.PAUSED)
_STATUS_NUMBER = case({status: place for place, status in enumerate(ActivityStatus, 1)}, value=Activity.status)
_STATE_NUMBER = case({state: place for place, state in enumerate(SendState, 1)}, value=SendCount.state)


def campaign_versions(session: Session, campaign_ids: Collection[int]) -> Mapping[int, str]:
    """Return a hash per campaign id over sums that change with its metrics, in two queries.

    Some rare changes, such as bounces long after the launch, are not part of it; the page picks those up with its
    timed refresh. Unknown ids are missing from the result.
    """
    digests: dict[int, Any] = defaultdict(lambda: hashlib.blake2b(digest_size=8))
    for query in (_CAMPAIGNS, _SUMS):
        for campaign_id, *sums in session.execute(query, {"ids": list(campaign_ids)}):
            digests[campaign_id].update(repr(sums).encode())
    return {campaign_id: seal.hexdigest() for campaign_id, seal in digests.items()}


_IDS: Any = bindparam("ids", expanding=True)
_LAST_LEAD = select(func.max(Lead.created_at)).where(Lead.campaign_id == Campaign.id).scalar_subquery()
_CAMPAIGNS = select(Campaign.id, Campaign.revision, _LAST_LEAD).where(Campaign.id.in_(_IDS))


def _sums_by_campaign(table: Any, *sums: Any) -> Select[Any]:
    query = select(Activity.campaign_id, *map(func.sum, sums)).join(table, table.activity_id == Activity.id)
    return query.where(Activity.campaign_id.in_(_IDS)).group_by(Activity.campaign_id)


def _build_sums_query() -> Any:
    hit, visit, attribution = TotalHitRollup, TotalVisitRollup, TotalAttribution
    queries = [
        select(Activity.campaign_id, func.count(), func.sum(Activity.revision), func.sum(Activity.id * _STATUS_NUMBER))
        .where(Activity.campaign_id.in_(_IDS))
        .group_by(Activity.campaign_id),
        _sums_by_campaign(hit, hit.events, hit.events * (hit.label * 16 + hit.kind), hit.uniques).where(hit.link == 0),
        _sums_by_campaign(visit, visit.visits * (visit.label + 1), visit.engaged, visit.active_seconds + visit.pages),
        _sums_by_campaign(
            attribution, attribution.own, attribution.touched, attribution.valued + attribution.last_valued
        ),
        _sums_by_campaign(
            SendCount, SendCount.count, SendCount.count * SendCount.flags, SendCount.count * _STATE_NUMBER
        ).where(Activity.status.in_(_SENDING_STATUSES)),
    ]
    return union_all(*(each.add_columns(literal(place).label("place")) for place, each in enumerate(queries))).order_by(
        "place"
    )


_SUMS = _build_sums_query()  # Built once at import: the statement never changes, only the bound ids do.
