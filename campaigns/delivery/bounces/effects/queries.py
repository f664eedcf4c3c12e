"""Queries of recorded feedback: by address, by activity, or all of it."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import Select, func, select
from sqlalchemy.orm import Session

from campaigns.delivery.bounces.models import RECORDED, Feedback, FeedbackType
from campaigns.planning.models import Activity

GRAVEST = (FeedbackType.COMPLAINT, FeedbackType.HARD, FeedbackType.POLICY, FeedbackType.SOFT)
"""Feedback types by severity, the most severe for the sender first."""


@dataclass(frozen=True, slots=True)
class BounceReason:
    """Group of an activity's bounces with the same type and status code."""

    finding: FeedbackType
    status: str
    """Enhanced status code; empty when the reports have none."""
    mails: int
    said: str
    """Diagnostic text of one of the group's bounces."""
    last_at: datetime


def asked(finding: FeedbackType | None = None, activity_id: int | None = None, words: str = "") -> Select[Feedback]:
    """Select feedback, optionally filtered; ``address_prefix`` matches the start of the address. Order it by id."""
    found = select(Feedback)
    if finding is not None:
        found = found.where(Feedback.feedback_type == finding)
    if activity_id is not None:
        found = found.where(Feedback.activity_id == activity_id)
    if words:
        found = found.where(Feedback.address.startswith(words.strip().lower(), autoescape=True))
    return found


def reasons(session: Session, activity_ids: Sequence[int], most: int = 12) -> list[BounceReason]:
    """Return the bounce reasons of these activities, by severity, then by number of mails, at most ``limit``."""
    if not activity_ids:
        return []
    number = func.count(Feedback.send_id.distinct())
    grouped = (
        select(Feedback.feedback_type, Feedback.status, number, func.max(Feedback.diagnostic), func.max(Feedback.at))
        .where(Feedback.activity_id.in_(activity_ids))
        .group_by(Feedback.feedback_type, Feedback.status)
    )
    found = [BounceReason(*row) for row in session.execute(grouped) if row[0] in RECORDED]
    return sorted(found, key=lambda each: (GRAVEST.index(each.finding), -each.mails))[:most]


def of_address(session: Session, address: str, most: int = 5) -> Sequence[tuple[Feedback, str]]:
    """Return the newest feedback of an address, at most ``limit``, as (feedback, title of its activity)."""
    newest = (
        select(Feedback, Activity.title)
        .join(Activity, Activity.id == Feedback.activity_id)
        .where(Feedback.address == address)
        .order_by(Feedback.at.desc(), Feedback.id.desc())
        .limit(most)
    )
    return [(row[0], row[1]) for row in session.execute(newest)]
