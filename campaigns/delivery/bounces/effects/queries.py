"""Queries of recorded feedback: by address, by activity, or all of it."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import Select, func, select
from sqlalchemy.orm import Session

from campaigns.delivery.bounces.models import RECORDED_TYPES, Feedback, FeedbackType
from campaigns.planning.models import Activity

BY_SEVERITY = (FeedbackType.COMPLAINT, FeedbackType.HARD, FeedbackType.POLICY, FeedbackType.SOFT)
"""Feedback types by severity, the most severe for the sender first."""


@dataclass(frozen=True, slots=True)
class BounceReason:
    """Group of an activity's bounces with the same type and status code."""

    feedback_type: FeedbackType
    status: str
    """Enhanced status code; empty when the reports have none."""
    mails: int
    diagnostic: str
    """Diagnostic text of one of the group's bounces."""
    last_at: datetime


def feedback_query(
    feedback_type: FeedbackType | None = None, activity_id: int | None = None, address_prefix: str = ""
) -> Select[Feedback]:
    """Select feedback, optionally filtered; ``address_prefix`` matches the start of the address. Order it by id."""
    query = select(Feedback)
    if feedback_type is not None:
        query = query.where(Feedback.feedback_type == feedback_type)
    if activity_id is not None:
        query = query.where(Feedback.activity_id == activity_id)
    if address_prefix:
        query = query.where(Feedback.address.startswith(address_prefix.strip().lower(), autoescape=True))
    return query


def bounce_reasons(session: Session, activity_ids: Sequence[int], limit: int = 12) -> list[BounceReason]:
    """Return the bounce reasons of these activities, by severity, then by number of mails, at most ``limit``."""
    if not activity_ids:
        return []
    mails = func.count(Feedback.send_id.distinct())
    grouped = (
        select(Feedback.feedback_type, Feedback.status, mails, func.max(Feedback.diagnostic), func.max(Feedback.at))
        .where(Feedback.activity_id.in_(activity_ids))
        .group_by(Feedback.feedback_type, Feedback.status)
    )
    rows = [BounceReason(*row) for row in session.execute(grouped) if row[0] in RECORDED_TYPES]
    return sorted(rows, key=lambda each: (BY_SEVERITY.index(each.feedback_type), -each.mails))[:limit]


def feedback_of_address(session: Session, address: str, limit: int = 5) -> Sequence[tuple[Feedback, str]]:
    """Return the newest feedback of an address, at most ``limit``, as (feedback, title of its activity)."""
    newest = (
        select(Feedback, Activity.title)
        .join(Activity, Activity.id == Feedback.activity_id)
        .where(Feedback.address == address)
        .order_by(Feedback.at.desc(), Feedback.id.desc())
        .limit(limit)
    )
    return [(row[0], row[1]) for row in session.execute(newest)]
