"""Conversion job for new leads: records conversions of the built-in goal "lead" and keeps their credit current."""

from collections.abc import Iterable, Sequence
from datetime import timedelta

from sqlalchemy import ColumnElement, ScalarSelect, and_, func, or_, select, update
from sqlalchemy.orm import InstrumentedAttribute, Session

from campaigns import clock, retries
from campaigns.capture.models import Submission
from campaigns.leads.models import Lead
from campaigns.retries import JobType
from tracking.bots import final_labels
from tracking.conversions import attribution_ledger
from tracking.conversions.attribution import LOOKBACK_WINDOW, assign_credit, find_touchpoints
from tracking.counters import bulk_sql
from tracking.models.conversions import LEAD_GOAL, Conversion, ConversionTouchpoint
from tracking.models.events import Event, HitKind, MinuteBucket, TrafficLabel

_CLICK_WAIT = timedelta(seconds=10)
"""Time for which a submission waits for its click to be collected; without it the click would earn no credit."""
_REPEAT_WINDOW = timedelta(minutes=1)
_COMMIT_ORDER_SLACK = 1_000
"""Concurrent transactions may commit out of id order; a row is assumed to commit within this many ids."""


_CONVERSIONS_OF_SENDS_SQL = """
    WITH asked (id) AS {ids}
    SELECT v.id, s.id, v.at FROM sends s JOIN conversions v ON v.contact_id = s.contact_id
    WHERE s.id IN (SELECT id FROM asked)
    UNION SELECT v.id, b.send_id, v.at FROM submissions b JOIN conversions v ON v.submission_id = b.id
    WHERE b.send_id IN (SELECT id FROM asked)
"""


def record_due(session: Session, limit: int = 500) -> int:
    """Record the conversions of new leads with their credit; return the number of leads processed.

    Each new lead, submitted by a form or entered by hand, is one conversion of the goal "lead"; a repeated
    submission is none. A submission finalises the label of its click as human. Idempotent.
    """
    return _record_submitted(session, limit) + _record_manual_leads(session, limit)


def _record_submitted(session: Session, limit: int) -> int:
    new, repeated = _due_submissions(session, limit), _repeated_submissions(session)
    if not new and not repeated:
        return 0
    clicks = {s.id: (s.send_id, s.at) for s in (*new, *repeated) if s.send_id is not None}

    def settle_batch(ids: Sequence[int]) -> None:
        final_labels.confirm_by_submission(session.connection(), [clicks[one] for one in ids])

    retries.run_batch(session, JobType.LINK_SUBMISSION, list(clicks), settle_batch)
    waiting = _awaiting_click(session, new)
    due = {submission.id: submission for submission in new if submission.id not in waiting}
    retries.run_batch(
        session,
        JobType.CONVERT_SUBMISSION,
        list(due),
        lambda ids: [_record_submission(session, due[one]) for one in ids],
    )
    session.flush()
    return len(due)


def _record_manual_leads(session: Session, limit: int) -> int:
    """Record leads entered by hand; the activity that the user chose earns the credit."""
    highest_recorded = (
        select(func.coalesce(func.max(Conversion.lead_id), 0)).where(Conversion.goal == LEAD_GOAL).scalar_subquery()
    )
    submitted = select(Submission.id).where(Submission.lead_id == Lead.id).exists()
    recorded = select(Conversion.id).where(Conversion.lead_id == Lead.id, Conversion.goal == LEAD_GOAL).exists()
    failed_ids, backed_off_ids = _failed_and_backed_off(session, JobType.RECORD_LEAD_CONVERSION)
    new = _is_new_or_failed(Lead.id, highest_recorded, failed_ids)
    entered = session.scalars(
        select(Lead).where(new, Lead.id.not_in(backed_off_ids), ~submitted, ~recorded).order_by(Lead.id).limit(limit)
    ).all()
    due = {lead.id: lead for lead in entered}
    retries.run_batch(
        session,
        JobType.RECORD_LEAD_CONVERSION,
        list(due),
        lambda ids: _record_manual(session, [due[one] for one in ids]),
    )
    return len(entered)


def _failed_and_backed_off(session: Session, job: JobType) -> tuple[list[int], list[int]]:
    """Ids at which a job failed, however old they are, and the ids among them that are backed off."""
    return [int(one) for one in retries.failed_subjects(session, job)], [
        int(one) for one in retries.backed_off_subjects(session, job)
    ]


def _is_new_or_failed(
    column: InstrumentedAttribute[int], highest_recorded: ScalarSelect[int], failed_ids: list[int]
) -> ColumnElement[bool]:
    """Condition for ids that are newer than the highest recorded one, or that failed before.

    The OR is added only when there are failed ids: with it, the database scans the whole table.
    """
    new = column > highest_recorded - _COMMIT_ORDER_SLACK
    return or_(new, column.in_(failed_ids)) if failed_ids else new


def _record_manual(session: Session, leads: Sequence[Lead]) -> None:
    for lead in leads:
        conversion = Conversion(
            external_id=f"lead:{lead.id}",
            campaign_id=lead.campaign_id,
            activity_id=lead.activity_id,
            contact_id=lead.contact_id,
            lead_id=lead.id,
            at=lead.created_at,
        )
        session.add(conversion)
        session.flush()
        assign_credit(session, conversion, [], fallback_touch={"kind": "entered"})


def _due_submissions(session: Session, limit: int) -> Sequence[Submission]:
    highest_recorded = select(func.coalesce(func.max(Conversion.submission_id), 0)).scalar_subquery()
    recorded = select(Conversion.id).where(Conversion.submission_id == Submission.id).exists()
    failed_ids, backed_off_ids = _failed_and_backed_off(session, JobType.CONVERT_SUBMISSION)
    new = _is_new_or_failed(Submission.id, highest_recorded, failed_ids)
    return session.scalars(
        select(Submission)
        .where(Submission.new_lead, new, Submission.id.not_in(backed_off_ids), ~recorded)
        .order_by(Submission.id)
        .limit(limit)
    ).all()


def _repeated_submissions(session: Session) -> Sequence[Submission]:
    """Submissions of the last minute by contacts who are leads already; older ones were processed before."""
    newest = select(func.coalesce(func.max(Submission.id), 0)).scalar_subquery()
    return session.scalars(
        select(Submission).where(
            ~Submission.new_lead,
            Submission.id > newest - _COMMIT_ORDER_SLACK,
            Submission.send_id.is_not(None),
            Submission.at > clock.now() - _REPEAT_WINDOW,
        )
    ).all()


def _awaiting_click(session: Session, submissions: Sequence[Submission]) -> set[int]:
    """Ids of the submissions whose click may still be in the spool."""
    recent_sends = {s.id: s.send_id for s in submissions if s.send_id is not None and s.at > clock.now() - _CLICK_WAIT}
    if not recent_sends:
        return set()
    clicked_sends = set(
        session.scalars(
            select(Event.send_id).where(Event.send_id.in_(set(recent_sends.values())), Event.kind == HitKind.CLICK)
        )
    )
    return {submission_id for submission_id, send_id in recent_sends.items() if send_id not in clicked_sends}


def _record_submission(session: Session, submission: Submission) -> Conversion:
    conversion = Conversion(
        external_id=f"submission:{submission.id}",
        submission_id=submission.id,
        campaign_id=submission.campaign_id,
        activity_id=submission.activity_id,
        contact_id=submission.contact_id,
        lead_id=submission.lead_id,
        at=submission.at,
    )
    session.add(conversion)
    session.flush()
    touches = find_touchpoints(session, submission.contact_id, submission.at, send_id=submission.send_id)
    assign_credit(session, conversion, touches, fallback_touch={"kind": "submission"})
    return conversion


def recredit_due(session: Session, limit: int = 500) -> int:
    """Recompute credit of conversions whose settling clicks got a final label; return how many lost a touchpoint.

    A click that settles as human keeps its credit; otherwise the credit goes to the remaining
    touchpoints. Idempotent.
    """
    settled = session.execute(
        select(ConversionTouchpoint.conversion_id, ConversionTouchpoint.source_id, Event.label)
        .outerjoin(
            Event,
            and_(
                Event.id == ConversionTouchpoint.source_id,
                # Redundant, but PostgreSQL indexes settled events by activity and minute, not by id.
                Event.activity_id == ConversionTouchpoint.activity_id,
                MinuteBucket(Event.at) == MinuteBucket(ConversionTouchpoint.at),
            ),
        )
        .where(ConversionTouchpoint.settling, func.coalesce(Event.label, TrafficLabel.HUMAN) != TrafficLabel.SETTLING)
        .limit(limit)
    ).all()
    lost_touch_ids = {row.conversion_id for row in settled if row.label not in (TrafficLabel.HUMAN, None)}
    human_click_ids = {row.source_id for row in settled if row.label in (TrafficLabel.HUMAN, None)}
    confirmed_ids = session.scalars(
        update(ConversionTouchpoint)
        .where(ConversionTouchpoint.settling, ConversionTouchpoint.source_id.in_(human_click_ids))
        .values(settling=False)
        .returning(ConversionTouchpoint.conversion_id)
        .execution_options(synchronize_session=False)
    ).all()
    attribution_ledger.recompute(session, set(confirmed_ids) - lost_touch_ids)
    retries.run_batch(
        session, JobType.RECOMPUTE_CREDIT, sorted(lost_touch_ids), lambda ids: _recredit_batch(session, ids)
    )
    session.flush()
    return len(lost_touch_ids)


def _recredit_batch(session: Session, conversion_ids: Sequence[int]) -> None:
    for conversion_id in conversion_ids:
        recredit(session, session.get_one(Conversion, conversion_id))


def recredit_relabelled(session: Session, clicks: Iterable[tuple[int | None, int]]) -> int:
    """Recompute the credit of conversions affected by relabelled clicks; return their number.

    ``clicks`` are pairs of send id and instant in microseconds. Affected are the conversions of the send's
    contact and of submissions through the send, within the lookback window after the click.
    """
    first_click: dict[int, int] = {}
    last_click: dict[int, int] = {}
    for send_id, at in clicks:
        if send_id is not None:
            first_click[send_id], last_click[send_id] = (
                min(at, first_click.get(send_id, at)),
                max(at, last_click.get(send_id, at)),
            )
    connection, window = session.connection(), LOOKBACK_WINDOW // timedelta(microseconds=1)
    due = {
        conversion_id
        for conversion_id, send_id, at in bulk_sql.select_by_ids(
            connection, _CONVERSIONS_OF_SENDS_SQL, list(first_click)
        )
        if first_click[send_id] <= bulk_sql.from_driver_instant(at) < last_click[send_id] + window
    }
    retries.run_batch(session, JobType.RECOMPUTE_CREDIT, sorted(due), lambda ids: _recredit_batch(session, ids))
    session.flush()
    return len(due)


def recredit(session: Session, conversion: Conversion) -> None:
    """Find the touchpoints of a conversion again and recompute its credit."""
    submission = session.get(Submission, conversion.submission_id) if conversion.submission_id else None
    touches = find_touchpoints(
        session,
        conversion.contact_id,
        conversion.at,
        send_id=submission.send_id if submission else None,
        visit_id=conversion.visit_id,
    )
    assign_credit(session, conversion, touches, fallback_touch={"kind": "submission" if submission else "reported"})
