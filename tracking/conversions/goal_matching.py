"""Goal matching: turns custom events, lead stages and form submissions into conversions.

Other packages leave rows flagged as not yet processed; the scheduler's tick matches them with the
active goals. Only what happened at or after ``Goal.since`` counts.
"""

from collections.abc import Iterable, Sequence
from datetime import datetime
from decimal import Decimal

from sqlalchemy import func, select, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from campaigns import retries
from campaigns.capture.models import Submission
from campaigns.leads.models import Lead
from campaigns.planning.models import Activity
from campaigns.retries import JobType
from tracking.conversions import currency as conversions_currency
from tracking.conversions import goals
from tracking.conversions.attribution import Touchpoint, assign_credit, find_touchpoints
from tracking.models.conversions import Conversion, CustomEvent, Goal, GoalKind


def match_due(session: Session, limit: int = 500) -> int:
    """Match unprocessed events, lead stages and submissions with goals; return the number of rows processed.

    Idempotent: a conversion's unique external id consists of the goal's key and the id of the row that
    reached the goal.
    """
    return _match_events(session, limit) + _match_stages(session, limit) + _match_forms(session, limit)


def _match_events(session: Session, limit: int) -> int:
    query = select(CustomEvent).where(~CustomEvent.processed).order_by(CustomEvent.id).limit(limit)
    due = {event.id: event for event in session.scalars(query)}
    if not due:
        return 0
    candidates = goals.active_goals(session, GoalKind.EVENT, *{event.name for event in due.values()})

    def match_batch(ids: Sequence[int]) -> None:
        for event in (due[one] for one in ids):
            for goal in candidates:
                if event.name in (goal.match, goal.key) and event.at >= goal.since:
                    _record_event_conversion(session, goal, event)
            event.processed = True
        session.flush()

    retries.run_batch(session, JobType.MATCH_EVENT, list(due), match_batch)
    return len(due)


def _record_event_conversion(session: Session, goal: Goal, event: CustomEvent) -> None:
    record_conversion(
        session,
        goal,
        f"event:{event.id}",
        event.at,
        contact_id=event.contact_id,
        visit_id=event.visit_id,
        activity_id=event.activity_id,
        amount=event.amount,
        currency=event.currency,
    )


def _match_stages(session: Session, limit: int) -> int:
    query = select(Lead).where(~Lead.stage_processed).order_by(Lead.id).limit(limit)
    due = {lead.id: lead for lead in session.scalars(query)}
    if not due:
        return 0
    candidates = goals.active_goals(session, GoalKind.STAGE)

    def match_batch(ids: Sequence[int]) -> None:
        for lead in (due[one] for one in ids):
            for goal in candidates:
                at = lead.stage_at or lead.created_at
                if goal.match == lead.stage and at >= goal.since:
                    record_conversion(
                        session,
                        goal,
                        f"lead:{lead.id}",
                        at,
                        contact_id=lead.contact_id,
                        activity_id=lead.activity_id,
                        lead_id=lead.id,
                    )
        # UPDATE with the stage in its condition: a stage changed by a concurrent transaction stays unprocessed.
        session.execute(
            update(Lead)
            .where(Lead.id.in_(ids), Lead.stage.in_({due[one].stage for one in ids}))
            .values(stage_processed=True)
        )

    retries.run_batch(session, JobType.MATCH_STAGE, list(due), match_batch)
    return len(due)


def _match_forms(session: Session, limit: int) -> int:
    query = select(Submission).where(~Submission.processed).order_by(Submission.id).limit(limit)
    due = {submission.id: submission for submission in session.scalars(query)}
    if not due:
        return 0
    candidates = goals.active_goals(session, GoalKind.FORM, *{str(one.activity_id) for one in due.values()})

    def match_batch(ids: Sequence[int]) -> None:
        for submission in (due[one] for one in ids):
            for goal in candidates:
                if goal.match == str(submission.activity_id) and submission.at >= goal.since:
                    record_conversion(
                        session,
                        goal,
                        f"submission:{submission.id}",
                        submission.at,
                        contact_id=submission.contact_id,
                        activity_id=submission.activity_id,
                        send_id=submission.send_id,
                    )
            submission.processed = True
        session.flush()

    retries.run_batch(session, JobType.MATCH_FORM, list(due), match_batch)
    return len(due)


def match_page(
    session: Session, candidates: Iterable[Goal], address: str, at: datetime, *, visit_id: int, contact_id: int | None
) -> None:
    """Record a conversion for each of the ``candidates`` that a page view reaches, at most once per visit."""
    for goal in candidates:
        if at >= goal.since and goals.goal_matches_page(goal, address):
            record_conversion(session, goal, f"visit:{visit_id}", at, contact_id=contact_id, visit_id=visit_id)


def record_conversion(
    session: Session,
    goal: Goal,
    source_key: str,
    at: datetime,
    *,
    contact_id: int | None = None,
    visit_id: int | None = None,
    activity_id: int | None = None,
    lead_id: int | None = None,
    send_id: int | None = None,
    amount: Decimal | None = None,
    currency: str = "",
) -> Conversion | None:
    """Record a conversion of ``goal`` with its credit; None when it is recorded already or doesn't count.

    ``source_key`` identifies the row that reached the goal, e.g. "event:17". The conversion belongs to the
    given activity, else to that of the last touchpoint, and to that activity's campaign. A goal limited to
    one campaign counts only conversions of this campaign. A goal without an amount uses ``Goal.value``.
    """
    if goal.once and _is_reached_already(session, goal, contact_id, visit_id):
        return None
    touches = find_touchpoints(session, contact_id, at, send_id=send_id, visit_id=visit_id)
    activity = _credited_activity(session, activity_id, touches)
    if goal.campaign_id is not None and (activity is None or activity.campaign_id != goal.campaign_id):
        return None
    if amount is None:
        amount, currency = goal.value, ""
    conversion = Conversion(
        external_id=f"{goal.key}:{source_key}",
        goal=goal.key,
        campaign_id=activity.campaign_id if activity else None,
        activity_id=activity.id if activity else None,
        contact_id=contact_id,
        visit_id=visit_id,
        lead_id=lead_id,
        amount=amount,
        currency=currency,
        value=conversions_currency.convert_amount(session, amount, currency, at),
        at=at,
    )
    try:
        with session.begin_nested():
            session.add(conversion)
    except IntegrityError:  # The unique external id exists already.
        return None
    assign_credit(session, conversion, touches, fallback_touch={"kind": "reported"})
    return conversion


def _is_reached_already(session: Session, goal: Goal, contact_id: int | None, visit_id: int | None) -> bool:
    if contact_id is not None:
        same_person = Conversion.contact_id == contact_id
    elif visit_id is not None:
        same_person = Conversion.visit_id == visit_id
    else:
        return False
    return bool(session.scalar(select(func.count()).where(Conversion.goal == goal.key, same_person).limit(1)))


def _credited_activity(session: Session, reported_id: int | None, touches: Sequence[Touchpoint]) -> Activity | None:
    activity_id = reported_id if reported_id is not None else touches[-1].activity_id if touches else None
    activity = session.get(Activity, activity_id) if activity_id is not None else None
    return None if activity is None or activity.built_in else activity
