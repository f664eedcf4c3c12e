"""Activities that brought leads, by last-touch credit."""

from collections.abc import Collection

from sqlalchemy import select
from sqlalchemy.orm import Session

from campaigns.accounts.actor import Actor, Permission
from campaigns.planning.models import Activity
from tracking.models.conversions import LEAD_GOAL, AttributionCredit, AttributionModel, Conversion


def last_touch_activities(session: Session, actor: Actor, lead_ids: Collection[int]) -> dict[int, Activity]:
    """The activity with the largest last-touch share of each lead's conversion, by lead id, in one query.

    Without a touchpoint this is the activity whose form was submitted. A lead whose conversion isn't
    recorded yet is missing from the result.
    """
    actor.require(Permission.PERSONAL)
    query = (
        select(Conversion.lead_id, Activity)
        .join(AttributionCredit, AttributionCredit.conversion_id == Conversion.id)
        .join(Activity, Activity.id == AttributionCredit.activity_id)
        .where(
            Conversion.lead_id.in_(lead_ids),
            Conversion.goal == LEAD_GOAL,
            AttributionCredit.model == AttributionModel.LAST_TOUCH,
        )
        .order_by(AttributionCredit.share, AttributionCredit.activity_id.desc())
    )
    return {lead_id: activity for lead_id, activity in session.execute(query) if lead_id is not None}
