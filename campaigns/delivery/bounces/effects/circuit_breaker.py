"""Circuit breaker of launches: pauses an activity whose bounce or complaint rate is too high."""

from collections.abc import Collection
from dataclasses import dataclass

from sqlalchemy import select
from sqlalchemy.orm import Session

from campaigns.accounts import audit
from campaigns.accounts.actor import SYSTEM
from campaigns.accounts.models import AuditLogEntry
from campaigns.delivery.bounces.effects.record import count_complaints
from campaigns.delivery.models import SendState
from campaigns.delivery.sends import progress
from campaigns.errors import Conflict
from campaigns.planning import launch
from campaigns.planning.models import Activity, ActivityStatus

MAX_BOUNCE_RATE = 0.05
MAX_COMPLAINT_RATE = 0.003
_MIN_ANSWERED = 200
"""Minimum number of answered mails before a rate is meaningful."""
AUDIT_VERB = "trip circuit breaker"


@dataclass(frozen=True, slots=True)
class BounceRates:
    """Counts of an activity's mails: answered by the relay, bounced, and complained about."""

    answered: int
    bounced: int
    complained: int

    @property
    def exceeded_limit(self) -> str:
        """``"bounces"`` or ``"complaints"`` when that rate exceeds its limit, else ``""``."""
        if self.answered < _MIN_ANSWERED:
            return ""
        if self.bounced > self.answered * MAX_BOUNCE_RATE:
            return "bounces"
        return "complaints" if self.complained > self.answered * MAX_COMPLAINT_RATE else ""


def bounce_rates(session: Session, activity: Activity) -> BounceRates:
    """Return the activity's bounce and complaint counts so far."""
    counts = progress.count_by_state(session, activity.id)
    bounced = counts.get(SendState.BOUNCED, 0)
    return BounceRates(counts.get(SendState.SENT, 0) + bounced, bounced, count_complaints(session, activity.id))


def pause_if_harmful(session: Session, activity_id: int) -> BounceRates | None:
    """Pause a live launch whose bounce or complaint rate is too high; return the counts, or None if not paused.

    Trips at most once per activity: after a user has resumed the launch, it is not paused again.
    """
    activity = session.get_one(Activity, activity_id, populate_existing=True)
    if activity.built_in is not None or activity.status is not ActivityStatus.LIVE:
        return None
    if trip_rates(session, activity_id) is not None:
        return None
    rates = bounce_rates(session, activity)
    if not rates.exceeded_limit:
        return None
    try:
        launch.pause(session, SYSTEM, activity)
    except Conflict:  # A user paused it in the meantime.
        return None
    audit.record(
        session,
        SYSTEM,
        AUDIT_VERB,
        "activity",
        activity_id,
        why=rates.exceeded_limit,
        answered=rates.answered,
        bounced=rates.bounced,
        complained=rates.complained,
    )
    return rates


def trip_rates(session: Session, activity_id: int) -> BounceRates | None:
    """Return the counts that tripped the circuit breaker of this activity, or None."""
    return trip_rates_by_activity(session, [activity_id]).get(activity_id)


def trip_rates_by_activity(session: Session, activity_ids: Collection[int]) -> dict[int, BounceRates]:
    """Return the counts that tripped the circuit breaker, by activity id; the newest entry of each activity wins."""
    entries = session.scalars(
        select(AuditLogEntry)
        .where(
            AuditLogEntry.subject_kind == "activity",
            AuditLogEntry.subject_id.in_([str(one) for one in activity_ids]),
            AuditLogEntry.action == AUDIT_VERB,
        )
        .order_by(AuditLogEntry.id)
    )
    return {
        int(entry.subject_id): BounceRates(*(int(entry.detail[name]) for name in ("answered", "bounced", "complained")))
        for entry in entries
    }
