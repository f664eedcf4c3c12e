"""Contact merge steps of tracking: deduplicates conversions and recomputes their credit."""

from sqlalchemy import delete, select, update
from sqlalchemy.orm import Session

from campaigns.capture.models import Submission
from tracking.counters import bulk_sql
from tracking.jobs.lead_conversions import recredit
from tracking.models.conversions import LEAD_GOAL, Conversion, Goal


def lock_counters(session: Session, _survivor_id: int, _duplicate_id: int) -> None:
    """Lock the counters, because the collector may be writing visits of the duplicate contact."""
    bulk_sql.lock_counting(session.connection())


def merge_conversions(session: Session, survivor_id: int, _duplicate_id: int) -> None:
    """Remove conversions that became duplicates by the merge, and recompute the credit of the others.

    A lead and a goal with ``once`` keep their earliest conversion.
    """
    once_goals = set(session.scalars(select(Goal.key).where(Goal.once)))
    seen: set[tuple[str, int | None]] = set()
    query = select(Conversion).where(Conversion.contact_id == survivor_id).order_by(Conversion.at, Conversion.id)
    for conversion in session.scalars(query).all():
        is_lead = conversion.goal == LEAD_GOAL and conversion.lead_id is not None
        key = conversion.goal, conversion.lead_id if is_lead else None
        if key in seen and (is_lead or conversion.goal in once_goals):
            session.execute(delete(Conversion).where(Conversion.id == conversion.id))
        elif not conversion.external_id.startswith("lead:"):  # A lead entered by hand keeps the entered activity.
            recredit(session, conversion)
        seen.add(key)
    _keep_earliest_new_lead(session, survivor_id)
    session.flush()


def _keep_earliest_new_lead(session: Session, contact_id: int) -> None:
    """Leave ``new_lead`` set on the earliest submission of each lead only.

    Otherwise the job would record a second conversion for the merged lead.
    """
    seen_lead_ids: set[int] = set()
    query = select(Submission.id, Submission.lead_id).where(Submission.contact_id == contact_id, Submission.new_lead)
    for submission_id, lead_id in session.execute(query.order_by(Submission.at, Submission.id)).all():
        if lead_id in seen_lead_ids:
            session.execute(update(Submission).where(Submission.id == submission_id).values(new_lead=False))
        seen_lead_ids.add(lead_id)
