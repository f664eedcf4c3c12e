"""New leads → conversions of the goal that is always there, each credited to its touches."""

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
"""How long a submission waits for the click that led to it: the collector may be a moment behind."""
_REPEATS_WITHIN = timedelta(minutes=1)
_LATE_COMMITS = 1_000
"""Rows may become visible out of the order of their ids, but not by as many as this."""


_BROUGHT = """
    WITH asked (id) AS {ids}
    SELECT v.id, s.id, v.at FROM sends s JOIN conversions v ON v.contact_id = s.contact_id
    WHERE s.id IN (SELECT id FROM asked)
    UNION SELECT v.id, b.send_id, v.at FROM submissions b JOIN conversions v ON v.submission_id = b.id
    WHERE b.send_id IN (SELECT id FROM asked)
"""


def record_due(session: Session, limit: int = 500) -> int:
    """Record and credit the conversions of new leads; how many.

    Every new lead is one conversion of the goal "lead", by a form or by hand; a repeated submission
    is none. Submissions settle the click that led to them as human. Harmless when run twice.
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
    """Leads that somebody entered by hand: their activity is what the coordinator says brought them."""
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
    """What a chore failed at, to be found however long ago it was; and those of it that wait for later."""
    return [int(one) for one in retries.failed(session, chore)], [int(one) for one in retries.put_off(session, chore)]


def _beyond(column: InstrumentedAttribute[int], reached: ScalarSelect[int], failed: list[int]) -> ColumnElement[bool]:
    """Whether an id is newer than those recorded, or failed. Mostly nothing has, and an OR reads the whole table."""
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
    """Fresh submissions of people who are leads already; older ones have had their turn."""
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
    """Those whose click is not in the log yet, but may still come."""
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
    """Give anew the credit that a click earned before it turned out to be nobody's; how many conversions.

    A click that was settling when it earned credit keeps it when it settles as human, and loses it
    to the touches that remain otherwise. Harmless when run twice.
    """
    settled = session.execute(
        select(ConversionTouchpoint.conversion_id, ConversionTouchpoint.source_id, Event.label)
        .outerjoin(
            Event,
            and_(
                Event.id == ConversionTouchpoint.source_id,
                # What an index needs that knows no ids.
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
    """Credit anew whatever these clicks (send, instant in microseconds) may have brought, after their labels moved:
    conversions of their contact, and of the send itself, that came within the look-back; how many."""
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
    """Look at the touches again, and share the credit by what they say now."""
    submission = session.get(Submission, conversion.submission_id) if conversion.submission_id else None
    touches = touches_of(
        session,
        conversion.contact_id,
        conversion.at,
        send_id=submission.send_id if submission else None,
        visit_id=conversion.visit_id,
    )
    credit(session, conversion, touches, otherwise={"kind": "submission" if submission else "reported"})
