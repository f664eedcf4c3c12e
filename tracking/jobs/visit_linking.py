"""Visit linking job: assigns visits to the contact who submitted a form, and matches viewed pages with goals."""

from collections.abc import Sequence
from datetime import datetime, timedelta

from sqlalchemy import delete, func, select, update
from sqlalchemy.orm import Session

from campaigns import clock, retries
from campaigns.audience import consent
from campaigns.audience.models import ConsentLevel, ConsentPurpose
from campaigns.capture.models import Submission
from campaigns.db import from_micros, to_micros
from campaigns.retries import JobType
from tracking.bots import final_labels
from tracking.collector.sessions import join_story
from tracking.conversions import goal_matching
from tracking.counters import breakdowns, bulk_sql, daily
from tracking.counters.aggregation import bucket
from tracking.models.conversions import Conversion, Goal
from tracking.models.events import TrafficLabel
from tracking.models.visits import PendingFormView, PendingPageGoal, TrafficSource, Visit, VisitRollup, WebPage

_NEWEST = 500
"""Number of newest submissions to match; enough, since a page view is spooled before its form is submitted."""
_FORM_PAGE = 32  # Leading characters of a submission's external id that identify the page view.
_REMEMBERED = timedelta(days=1)


def join_due(session: Session, limit: int = 500) -> int:
    """Link visits to contacts and record conversions of page goals; return the number of rows processed.

    Idempotent.
    """
    return _forms(session, limit) + _pages(session, limit)


def forget_old(session: Session) -> None:
    """Delete form views older than a day, whose form was not submitted."""
    session.execute(delete(PendingFormView).where(PendingFormView.at < clock.now() - _REMEMBERED))


def _forms(session: Session, limit: int) -> int:
    newest = select(func.coalesce(func.max(Submission.id), 0)).scalar_subquery()
    query = select(Submission).where(Submission.id > newest - _NEWEST, Submission.at > clock.now() - _REMEMBERED)
    sent = {submission.external_id[:_FORM_PAGE]: submission for submission in session.scalars(query)}
    if not sent:
        return 0
    seen = session.scalars(select(PendingFormView).where(PendingFormView.page.in_(sent)).limit(limit)).all()
    if not seen:
        return 0
    bulk_sql.lock_counting(session.connection())
    for form in seen:
        visit = session.get(Visit, form.visit_id, populate_existing=True)
        if visit is not None:
            _sent(session, visit, sent[form.page])
        session.delete(form)
    session.flush()
    return len(seen)


def _sent(session: Session, visit: Visit, submission: Submission) -> None:
    """Mark a visit with a form submission as engaged, and link it to the contact if they consent to tracking."""
    level = consent.as_of(session, [submission.contact_id], ConsentPurpose.TRACKING, clock.now())
    if level.get(submission.contact_id) is ConsentLevel.FULL and visit.contact_id in (None, submission.contact_id):
        visit.contact_id = submission.contact_id
        session.flush()
        join_story(session.connection(), visit.visitor, submission.contact_id, to_micros(visit.started_at))
        session.execute(
            update(Conversion)
            .where(Conversion.visit_id == visit.id, Conversion.contact_id.is_(None))
            .values(contact_id=submission.contact_id)
            .execution_options(synchronize_session=False)
        )
    engage(session, visit)


def engage(session: Session, visit: Visit) -> None:
    """Mark a visit as engaged, and update its counters and the label of the click that led to it."""
    if visit.engaged:
        return
    visit.engaged = True
    group = session.scalar(select(TrafficSource.channel_group).where(TrafficSource.id == visit.traffic_source_id))
    daily.ready(session.connection())
    counted = session.execute(
        update(VisitRollup)
        .where(
            VisitRollup.activity_id == (visit.activity_id or 0),
            VisitRollup.channel_group == group,
            VisitRollup.label == visit.label,
            VisitRollup.bucket == _bucket(visit),
        )
        .values(engaged=VisitRollup.engaged + 1)
        .execution_options(synchronize_session=False)
    )
    if counted.rowcount:  # type: ignore[attr-defined]
        engaged = [int(name == "engaged") for name in daily.VISITS]
        key = (visit.activity_id or 0, bucket(to_micros(visit.started_at)), group or 0, visit.label)
        daily.add_visits(session.connection(), [(key, engaged)])
    if visit.activity_id and visit.label == TrafficLabel.HUMAN:
        place = (visit.activity_id, visit.entry_id, visit.traffic_source_id, visit.device, visit.country)
        breakdowns.add(session.connection(), [(place, (0, 1, 0))])
    session.flush()
    if visit.send_id is not None:
        final_labels.settle_engaged(session.connection(), [(visit.send_id, visit.started_at)])


def _bucket(visit: Visit) -> datetime:
    return from_micros(bucket(to_micros(visit.started_at)))


def _pages(session: Session, limit: int) -> int:
    query = select(PendingPageGoal, Goal, WebPage, Visit.contact_id)
    query = query.join(Goal, Goal.id == PendingPageGoal.goal_id).join(WebPage, WebPage.id == PendingPageGoal.page_id)
    query = query.outerjoin(Visit, Visit.id == PendingPageGoal.visit_id).order_by(PendingPageGoal.visit_id).limit(limit)
    found = session.execute(query).all()
    if not found:
        return 0

    def reach(visit_ids: Sequence[int]) -> None:
        for reached, goal, page, contact_id in found:
            if reached.visit_id in visit_ids:
                goal_matching.by_page(
                    session, [goal], page.address, reached.at, visit_id=reached.visit_id, contact_id=contact_id
                )
                session.delete(reached)
        session.flush()

    retries.carry(session, JobType.MATCH_PAGE, sorted({row[0].visit_id for row in found}), reach)
    return len(found)
