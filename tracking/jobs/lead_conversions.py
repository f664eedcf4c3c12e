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
from tracking.conversions.attribution import LOOK_BACK, credit, touches_of
from tracking.counters import bulk_sql
from tracking.models.conversions import LEAD_GOAL, Conversion, ConversionTouchpoint
from tracking.models.events import Event, HitKind, MinuteBucket, TrafficLabel

_PATIENCE = timedelta(seconds=10)
"""How long a submission waits for its click to be collected; without it the click would earn no credit."""
_REPEATS_WITHIN = timedelta(minutes=1)
_LATE_COMMITS = 1_000
"""Concurrent transactions may commit out of id order; a row is assumed to commit within this many ids."""


_BROUGHT = """
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
    return _record_submitted(session, limit) + _record_entered(session, limit)


def _record_submitted(session: Session, limit: int) -> int:
    new, repeated = _due(session, limit), _repeated(session)
    if not new and not repeated:
        return 0
    came_by = {s.id: (s.send_id, s.at) for s in (*new, *repeated) if s.send_id is not None}

    def settle_some(ids: Sequence[int]) -> None:
        final_labels.settle_submitted(session.connection(), [came_by[one] for one in ids])

    retries.carry(session, JobType.LINK_SUBMISSION, list(came_by), settle_some)
    waiting = _waiting(session, new)
    due = {submission.id: submission for submission in new if submission.id not in waiting}
    retries.carry(
        session, JobType.CONVERT_SUBMISSION, list(due), lambda ids: [_record(session, due[one]) for one in ids]
    )
    session.flush()
    return len(due)


def _record_entered(session: Session, limit: int) -> int:
    """Record leads entered by hand; the activity that the user chose earns the credit."""
    reached = (
        select(func.coalesce(func.max(Conversion.lead_id), 0)).where(Conversion.goal == LEAD_GOAL).scalar_subquery()
    )
    submitted = select(Submission.id).where(Submission.lead_id == Lead.id).exists()
    recorded = select(Conversion.id).where(Conversion.lead_id == Lead.id, Conversion.goal == LEAD_GOAL).exists()
    failed, later = _put_off(session, JobType.CONVERT_LEAD)
    new = _beyond(Lead.id, reached, failed)
    entered = session.scalars(
        select(Lead).where(new, Lead.id.not_in(later), ~submitted, ~recorded).order_by(Lead.id).limit(limit)
    ).all()
    due = {lead.id: lead for lead in entered}
    retries.carry(session, JobType.CONVERT_LEAD, list(due), lambda ids: _enter(session, [due[one] for one in ids]))
    return len(entered)


def _put_off(session: Session, chore: JobType) -> tuple[list[int], list[int]]:
    """Ids at which a job failed, however old they are, and the ids among them that are backed off."""
    return [int(one) for one in retries.failed(session, chore)], [int(one) for one in retries.put_off(session, chore)]


def _beyond(column: InstrumentedAttribute[int], reached: ScalarSelect[int], failed: list[int]) -> ColumnElement[bool]:
    """Condition for ids that are newer than the highest recorded one, or that failed before.

    The OR is added only when there are failed ids: with it, the database scans the whole table.
    """
    new = column > reached - _LATE_COMMITS
    return or_(new, column.in_(failed)) if failed else new


def _enter(session: Session, leads: Sequence[Lead]) -> None:
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
        credit(session, conversion, [], otherwise={"kind": "entered"})


def _due(session: Session, limit: int) -> Sequence[Submission]:
    reached = select(func.coalesce(func.max(Conversion.submission_id), 0)).scalar_subquery()
    recorded = select(Conversion.id).where(Conversion.submission_id == Submission.id).exists()
    failed, later = _put_off(session, JobType.CONVERT_SUBMISSION)
    new = _beyond(Submission.id, reached, failed)
    return session.scalars(
        select(Submission)
        .where(Submission.new_lead, new, Submission.id.not_in(later), ~recorded)
        .order_by(Submission.id)
        .limit(limit)
    ).all()


def _repeated(session: Session) -> Sequence[Submission]:
    """Submissions of the last minute by contacts who are leads already; older ones were processed before."""
    newest = select(func.coalesce(func.max(Submission.id), 0)).scalar_subquery()
    return session.scalars(
        select(Submission).where(
            ~Submission.new_lead,
            Submission.id > newest - _LATE_COMMITS,
            Submission.send_id.is_not(None),
            Submission.at > clock.now() - _REPEATS_WITHIN,
        )
    ).all()


def _waiting(session: Session, submissions: Sequence[Submission]) -> set[int]:
    """Ids of the submissions whose click may still be in the spool."""
    fresh = {s.id: s.send_id for s in submissions if s.send_id is not None and s.at > clock.now() - _PATIENCE}
    if not fresh:
        return set()
    clicked = set(
        session.scalars(
            select(Event.send_id).where(Event.send_id.in_(set(fresh.values())), Event.kind == HitKind.CLICK)
        )
    )
    return {submission_id for submission_id, send_id in fresh.items() if send_id not in clicked}


def _record(session: Session, submission: Submission) -> Conversion:
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
    touches = touches_of(session, submission.contact_id, submission.at, send_id=submission.send_id)
    credit(session, conversion, touches, otherwise={"kind": "submission"})
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
    gone = {row.conversion_id for row in settled if row.label not in (TrafficLabel.HUMAN, None)}
    kept = {row.source_id for row in settled if row.label in (TrafficLabel.HUMAN, None)}
    certain = session.scalars(
        update(ConversionTouchpoint)
        .where(ConversionTouchpoint.settling, ConversionTouchpoint.source_id.in_(kept))
        .values(settling=False)
        .returning(ConversionTouchpoint.conversion_id)
        .execution_options(synchronize_session=False)
    ).all()
    attribution_ledger.write(session, set(certain) - gone)
    retries.carry(session, JobType.RECOMPUTE_CREDIT, sorted(gone), lambda ids: _credit_all_anew(session, ids))
    session.flush()
    return len(gone)


def _credit_all_anew(session: Session, conversion_ids: Sequence[int]) -> None:
    for conversion_id in conversion_ids:
        credit_anew(session, session.get_one(Conversion, conversion_id))


def credit_moved(session: Session, clicks: Iterable[tuple[int | None, int]]) -> int:
    """Recompute the credit of conversions affected by relabelled clicks; return their number.

    ``clicks`` are pairs of send id and instant in microseconds. Affected are the conversions of the send's
    contact and of submissions through the send, within the lookback window after the click.
    """
    first: dict[int, int] = {}
    last: dict[int, int] = {}
    for send_id, at in clicks:
        if send_id is not None:
            first[send_id], last[send_id] = min(at, first.get(send_id, at)), max(at, last.get(send_id, at))
    connection, window = session.connection(), LOOK_BACK // timedelta(microseconds=1)
    due = {
        conversion_id
        for conversion_id, send_id, at in bulk_sql.select_by_ids(connection, _BROUGHT, list(first))
        if first[send_id] <= bulk_sql.micros(at) < last[send_id] + window
    }
    retries.carry(session, JobType.RECOMPUTE_CREDIT, sorted(due), lambda ids: _credit_all_anew(session, ids))
    session.flush()
    return len(due)


def credit_anew(session: Session, conversion: Conversion) -> None:
    """Find the touchpoints of a conversion again and recompute its credit."""
    submission = session.get(Submission, conversion.submission_id) if conversion.submission_id else None
    touches = touches_of(
        session,
        conversion.contact_id,
        conversion.at,
        send_id=submission.send_id if submission else None,
        visit_id=conversion.visit_id,
    )
    credit(session, conversion, touches, otherwise={"kind": "submission" if submission else "reported"})
