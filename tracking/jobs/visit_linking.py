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
from tracking.collector.sessions import link_earlier_visits
from tracking.conversions import goal_matching
from tracking.counters import breakdowns, bulk_sql, daily
from tracking.counters.aggregation import bucket_start
from tracking.models.conversions import Conversion, Goal
from tracking.models.events import TrafficLabel
from tracking.models.visits import PendingFormView, PendingPageGoal, TrafficSource, Visit, VisitRollup, WebPage

_RECENT_SUBMISSIONS = 500
"""Number of newest submissions to match; enough, since a page view is spooled before its form is submitted."""
_PAGE_ID_LENGTH = 32  # Leading characters of a submission's external id that identify the page view.
_FORM_VIEW_LIFETIME = timedelta(days=1)


def link_due(session: Session, limit: int = 500) -> int:
    """Link visits to contacts and record conversions of page goals; return the number of rows processed.

    Idempotent.
    """
    return _link_submitted_forms(session, limit) + _match_page_goals(session, limit)


def delete_old_form_views(session: Session) -> None:
    """Delete form views older than a day, whose form was not submitted."""
    session.execute(delete(PendingFormView).where(PendingFormView.at < clock.now() - _FORM_VIEW_LIFETIME))


def _link_submitted_forms(session: Session, limit: int) -> int:
    newest = select(func.coalesce(func.max(Submission.id), 0)).scalar_subquery()
    query = select(Submission).where(
        Submission.id > newest - _RECENT_SUBMISSIONS, Submission.at > clock.now() - _FORM_VIEW_LIFETIME
    )
    submissions_by_page = {
        submission.external_id[:_PAGE_ID_LENGTH]: submission for submission in session.scalars(query)
    }
    if not submissions_by_page:
        return 0
    form_views = session.scalars(
        select(PendingFormView).where(PendingFormView.page.in_(submissions_by_page)).limit(limit)
    ).all()
    if not form_views:
        return 0
    bulk_sql.lock_counting(session.connection())
    for form in form_views:
        visit = session.get(Visit, form.visit_id, populate_existing=True)
        if visit is not None:
            _link_visit(session, visit, submissions_by_page[form.page])
        session.delete(form)
    session.flush()
    return len(form_views)


def _link_visit(session: Session, visit: Visit, submission: Submission) -> None:
    """Mark a visit with a form submission as engaged, and link it to the contact if they consent to tracking."""
    consent_levels = consent.levels_as_of(session, [submission.contact_id], ConsentPurpose.TRACKING, clock.now())
    if consent_levels.get(submission.contact_id) is ConsentLevel.FULL and visit.contact_id in (
        None,
        submission.contact_id,
    ):
        visit.contact_id = submission.contact_id
        session.flush()
        link_earlier_visits(session.connection(), visit.visitor, submission.contact_id, to_micros(visit.started_at))
        session.execute(
            update(Conversion)
            .where(Conversion.visit_id == visit.id, Conversion.contact_id.is_(None))
            .values(contact_id=submission.contact_id)
            .execution_options(synchronize_session=False)
        )
    mark_engaged(session, visit)


def mark_engaged(session: Session, visit: Visit) -> None:
    """Mark a visit as engaged, and update its counters and the label of the click that led to it."""
    if visit.engaged:
        return
    visit.engaged = True
    channel_group = session.scalar(
        select(TrafficSource.channel_group).where(TrafficSource.id == visit.traffic_source_id)
    )
    daily.ensure_zone_current(session.connection())
    result = session.execute(
        update(VisitRollup)
        .where(
            VisitRollup.activity_id == (visit.activity_id or 0),
            VisitRollup.channel_group == channel_group,
            VisitRollup.label == visit.label,
            VisitRollup.bucket == _start_bucket(visit),
        )
        .values(engaged=VisitRollup.engaged + 1)
        .execution_options(synchronize_session=False)
    )
    if result.rowcount:  # type: ignore[attr-defined]
        engaged = [int(name == "engaged") for name in daily.VISIT_COLUMNS]
        key = (visit.activity_id or 0, bucket_start(to_micros(visit.started_at)), channel_group or 0, visit.label)
        daily.add_visits(session.connection(), [(key, engaged)])
    if visit.activity_id and visit.label == TrafficLabel.HUMAN:
        dimensions = (visit.activity_id, visit.entry_id, visit.traffic_source_id, visit.device, visit.country)
        breakdowns.add(session.connection(), [(dimensions, (0, 1, 0))])
    session.flush()
    if visit.send_id is not None:
        final_labels.confirm_by_engaged_visit(session.connection(), [(visit.send_id, visit.started_at)])


def _start_bucket(visit: Visit) -> datetime:
    return from_micros(bucket_start(to_micros(visit.started_at)))


def _match_page_goals(session: Session, limit: int) -> int:
    query = select(PendingPageGoal, Goal, WebPage, Visit.contact_id)
    query = query.join(Goal, Goal.id == PendingPageGoal.goal_id).join(WebPage, WebPage.id == PendingPageGoal.page_id)
    query = query.outerjoin(Visit, Visit.id == PendingPageGoal.visit_id).order_by(PendingPageGoal.visit_id).limit(limit)
    rows = session.execute(query).all()
    if not rows:
        return 0

    def match_batch(visit_ids: Sequence[int]) -> None:
        for reached, goal, page, contact_id in rows:
            if reached.visit_id in visit_ids:
                goal_matching.match_page(
                    session, [goal], page.address, reached.at, visit_id=reached.visit_id, contact_id=contact_id
                )
                session.delete(reached)
        session.flush()

    retries.run_batch(session, JobType.MATCH_PAGE, sorted({row[0].visit_id for row in rows}), match_batch)
    return len(rows)
