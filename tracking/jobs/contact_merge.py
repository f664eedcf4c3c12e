"""Contact merge steps of tracking: deduplicates conversions and recomputes their credit."""

from sqlalchemy import delete, select, update
from sqlalchemy.orm import Session

from campaigns.capture.models import Submission
from tracking.counters import bulk_sql
from tracking.jobs.lead_conversions import credit_anew
from tracking.models.conversions import LEAD_GOAL, Conversion, Goal


def wait_for_the_collector(session: Session, _stays_id: int, _goes_id: int) -> None:
    """Lock the counters, because the collector may be writing visits of the duplicate contact."""
    bulk_sql.lock_counting(session.connection())


def count_once(session: Session, stays_id: int, _goes_id: int) -> None:
    """Remove conversions that became duplicates by the merge, and recompute the credit of the others.

    A lead and a goal with ``once`` keep their earliest conversion.
    """
    once = set(session.scalars(select(Goal.key).where(Goal.once)))
    seen: set[tuple[str, int | None]] = set()
    theirs = select(Conversion).where(Conversion.contact_id == stays_id).order_by(Conversion.at, Conversion.id)
    for conversion in session.scalars(theirs).all():
        opens_lead = conversion.goal == LEAD_GOAL and conversion.lead_id is not None
        what = conversion.goal, conversion.lead_id if opens_lead else None
        if what in seen and (opens_lead or conversion.goal in once):
            session.execute(delete(Conversion).where(Conversion.id == conversion.id))
        elif not conversion.external_id.startswith("lead:"):  # A lead entered by hand keeps the entered activity.
            credit_anew(session, conversion)
        seen.add(what)
    _one_new_lead(session, stays_id)
    session.flush()


def _one_new_lead(session: Session, contact_id: int) -> None:
    """Leave ``new_lead`` set on the earliest submission of each lead only.

    Otherwise the job would record a second conversion for the merged lead.
    """
    opened: set[int] = set()
    query = select(Submission.id, Submission.lead_id).where(Submission.contact_id == contact_id, Submission.new_lead)
    for submission_id, lead_id in session.execute(query.order_by(Submission.at, Submission.id)).all():
        if lead_id in opened:
            session.execute(update(Submission).where(Submission.id == submission_id).values(new_lead=False))
        opened.add(lead_id)
