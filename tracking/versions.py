"""Whether anything of a campaign's figures has changed: asked every second while somebody looks at them."""

import hashlib
from collections import defaultdict
from collections.abc import Collection, Mapping
from typing import Any

from sqlalchemy import Select, case, func, literal, select, union_all
from sqlalchemy.orm import Session

from campaigns.delivery.models import SendState
from campaigns.delivery.send_counts import SendCount
from campaigns.leads.models import Lead
from campaigns.planning.models import Activity, ActivityStatus, Campaign
from tracking.earning_models import LifeEarning
from tracking.facts import one_of
from tracking.models import LifeRollup
from tracking.visit_models import LifeVisits

_UNSENT = (ActivityStatus.LIVE, ActivityStatus.PAUSED)
_STATUS = case({status: place for place, status in enumerate(ActivityStatus, 1)}, value=Activity.status)
_STATE = case({state: place for place, state in enumerate(SendState, 1)}, value=SendCount.state)


def campaign_versions(session: Session, campaign_ids: Collection[int]) -> Mapping[int, str]:
    """A version of each campaign, of sums that change with its figures; one query of a few rows for each activity.
    What it leaves out (bounces long after the launch, say) is seen by the page's next look by the clock."""
    seals: dict[int, Any] = defaultdict(lambda: hashlib.blake2b(digest_size=8))
    for campaign_id, *sums in session.execute(_sums(session, campaign_ids)):
        seals[campaign_id].update(repr(sums).encode())
    return {campaign_id: seal.hexdigest() for campaign_id, seal in seals.items()}


def _sums(session: Session, campaign_ids: Collection[int]) -> Any:
    of_campaign = one_of(session, Activity.campaign_id, campaign_ids)

    def joined(table: Any, *sums: Any) -> Select[Any]:
        return (
            select(Activity.campaign_id, *map(func.sum, sums))
            .join(table, table.activity_id == Activity.id)
            .where(of_campaign)
            .group_by(Activity.campaign_id)
        )

    hit, visit, earned = LifeRollup, LifeVisits, LifeEarning
    asked = [
        select(Campaign.id, Campaign.revision, literal(0), literal(0)).where(
            one_of(session, Campaign.id, campaign_ids)
        ),
        select(Activity.campaign_id, func.count(), func.sum(Activity.revision), func.sum(Activity.id * _STATUS))
        .where(of_campaign)
        .group_by(Activity.campaign_id),
        joined(hit, hit.events, hit.events * (hit.label * 16 + hit.kind), hit.uniques),
        joined(visit, visit.visits * (visit.label + 1), visit.engaged, visit.active_seconds + visit.pages),
        joined(earned, earned.own, earned.touched, earned.valued + earned.last_valued),
        joined(SendCount, SendCount.number, SendCount.number * SendCount.marks, SendCount.number * _STATE).where(
            Activity.status.in_(_UNSENT)
        ),
        select(Lead.campaign_id, func.count(), func.max(Lead.id), literal(0))
        .where(one_of(session, Lead.campaign_id, campaign_ids))
        .group_by(Lead.campaign_id),
    ]
    numbered = [each.add_columns(literal(place).label("place")) for place, each in enumerate(asked)]
    return union_all(*numbered).order_by("place")
