"""Questions about visits: how many a campaign brought, from where, to which pages."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import BigInteger, cast, func, select
from sqlalchemy.orm import Session

from campaigns.planning.models import Activity
from tracking.models import Label
from tracking.visit_models import VisitRollup


@dataclass(frozen=True, slots=True)
class Visits:
    """Visits of people; those of programs are left out."""

    visits: int = 0
    visitors: int = 0
    """Of this activity: whoever came by two activities is one of each."""
    engaged: int = 0
    active_seconds: int = 0
    pages: int = 0
    new: int = 0
    campaign_visitors: int = 0
    """Whose first visit of the whole campaign this activity brought: these add up to the campaign's visitors."""
    aggregate: int = 0
    """How many of the visits are counted without a visitor."""

    def __add__(self, other: "Visits") -> "Visits":
        """Of two activities of a campaign together; their visitors are those of the campaign."""
        return Visits(*(getattr(self, name) + getattr(other, name) for name in COUNTS))


COUNTS = (
    "visits", "visitors", "engaged", "active_seconds", "pages", "new", "campaign_visitors", "aggregate"
)  # fmt: skip


def visit_counts(
    session: Session, campaign_ids: Collection[int], *, since: datetime | None = None, until: datetime | None = None
) -> Mapping[int, Visits]:
    """Visits by activity of these campaigns, those that began from ``since`` on and before ``until``, in
    one query of the rollups. A campaign's unique visitors are the sum of ``campaign_visitors``."""
    sums = (cast(func.sum(getattr(VisitRollup, name)), BigInteger) for name in COUNTS)
    query = (
        select(VisitRollup.activity_id, *sums)
        .join(Activity, Activity.id == VisitRollup.activity_id)
        .where(Activity.campaign_id.in_(campaign_ids), VisitRollup.label == Label.HUMAN)
        .group_by(VisitRollup.activity_id)
    )
    if since is not None:
        query = query.where(VisitRollup.bucket >= since)
    if until is not None:
        query = query.where(VisitRollup.bucket < until)
    return {activity_id: Visits(*counts) for activity_id, *counts in session.execute(query)}
