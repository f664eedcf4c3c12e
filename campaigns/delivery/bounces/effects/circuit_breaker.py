"""A launch that does harm pauses itself: too many addresses bounce, or too many people complain."""

from collections.abc import Collection
from dataclasses import dataclass

from sqlalchemy import select
from sqlalchemy.orm import Session

from campaigns.accounts import audit
from campaigns.accounts.actor import SYSTEM
from campaigns.accounts.models import AuditLogEntry
from campaigns.delivery.bounces.effects.record import complaints_of
from campaigns.delivery.models import SendState
from campaigns.delivery.sends import progress
from campaigns.errors import Conflict
from campaigns.planning import launch
from campaigns.planning.models import Activity, ActivityStatus

BOUNCES = 0.05
COMPLAINTS = 0.003
_ENOUGH = 200
"""Mails with an answer before a share of them means something."""
VERB = "trip"


@dataclass(frozen=True, slots=True)
class BounceRates:
    """Shares of the mails that were answered."""

    answered: int
    bounced: int
    complained: int

    @property
    def why(self) -> str:
        """``bounces`` or ``complaints``; empty when all is well."""
        if self.answered < _ENOUGH:
            return ""
        if self.bounced > self.answered * BOUNCES:
            return "bounces"
        return "complaints" if self.complained > self.answered * COMPLAINTS else ""


def harm(session: Session, activity: Activity) -> BounceRates:
    """What the activity's mails have led to so far."""
    found = progress.counts(session, activity.id)
    bounced = found.get(SendState.BOUNCED, 0)
    return BounceRates(found.get(SendState.SENT, 0) + bounced, bounced, complaints_of(session, activity.id))


def pause_if_harmful(session: Session, activity_id: int) -> BounceRates | None:
    """Pause a live launch whose bounces or complaints are too many; what it was, or None.

    Once resumed by somebody it goes on: that person has decided.
    """
    activity = session.get_one(Activity, activity_id, populate_existing=True)
    if activity.built_in is not None or activity.status is not ActivityStatus.LIVE:
        return None
    if told(session, activity_id) is not None:
        return None
    found = harm(session, activity)
    if not found.why:
        return None
    try:
        launch.pause(session, SYSTEM, activity)
    except Conflict:  # Somebody was faster.
        return None
    audit.record(
        session,
        SYSTEM,
        VERB,
        "activity",
        activity_id,
        why=found.why,
        answered=found.answered,
        bounced=found.bounced,
        complained=found.complained,
    )
    return found


def told(session: Session, activity_id: int) -> BounceRates | None:
    """Why the launch paused itself, if it ever did."""
    return all_told(session, [activity_id]).get(activity_id)


def all_told(session: Session, activity_ids: Collection[int]) -> dict[int, BounceRates]:
    """Those of the activities whose launch paused itself, with the newest reason."""
    entries = session.scalars(
        select(AuditLogEntry)
        .where(
            AuditLogEntry.subject_kind == "activity",
            AuditLogEntry.subject_id.in_([str(one) for one in activity_ids]),
            AuditLogEntry.action == VERB,
        )
        .order_by(AuditLogEntry.id)
    )
    return {
        int(entry.subject_id): BounceRates(*(int(entry.detail[name]) for name in ("answered", "bounced", "complained")))
        for entry in entries
    }
