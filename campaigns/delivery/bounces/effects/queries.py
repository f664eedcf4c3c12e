"""What came back, as somebody asks for it: one address's, one mailing's, or all of it."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import Select, func, select
from sqlalchemy.orm import Session

from campaigns.delivery.bounces.models import RECORDED, Feedback, FeedbackType
from campaigns.planning.models import Activity

GRAVEST = (FeedbackType.COMPLAINT, FeedbackType.HARD, FeedbackType.POLICY, FeedbackType.SOFT)
"""In the order of what they mean for a sender."""


@dataclass(frozen=True, slots=True)
class BounceReason:
    """Mails that came back alike."""

    finding: FeedbackType
    status: str
    """Enhanced status code, empty when nobody said one."""
    mails: int
    said: str
    """What one of the other servers said."""
    last_at: datetime


def asked(finding: FeedbackType | None = None, activity_id: int | None = None, words: str = "") -> Select[Feedback]:
    """Bounces and complaints, narrowed; ``words`` begin the address. To be ordered by id."""
    found = select(Feedback)
    if finding is not None:
        found = found.where(Feedback.feedback_type == finding)
    if activity_id is not None:
        found = found.where(Feedback.activity_id == activity_id)
    if words:
        found = found.where(Feedback.address.startswith(words.strip().lower(), autoescape=True))
    return found


def reasons(session: Session, activity_ids: Sequence[int], most: int = 12) -> list[BounceReason]:
    """Why mails of these activities came back, the gravest first, then the most frequent."""
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
    """The last that came back from an address, with the titles of their activities."""
    newest = (
        select(Feedback, Activity.title)
        .join(Activity, Activity.id == Feedback.activity_id)
        .where(Feedback.address == address)
        .order_by(Feedback.at.desc(), Feedback.id.desc())
        .limit(most)
    )
    return [(row[0], row[1]) for row in session.execute(newest)]
