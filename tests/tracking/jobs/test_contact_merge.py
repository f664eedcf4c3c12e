"""Tests of conversions, credit and sends after a contact merge."""

from datetime import timedelta

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from campaigns import clock
from campaigns.accounts.actor import SYSTEM
from campaigns.audience.contact_merge import merge_contacts
from campaigns.capture.models import Submission
from campaigns.delivery.models import Send, SendState
from campaigns.leads.models import Lead, LeadStage
from campaigns.planning.models import Activity, Channel
from tests.factories import make_activity, make_campaign, make_contact, make_form
from tracking.conversions import attribution_ledger
from tracking.jobs import lead_conversions
from tracking.metrics.performance import campaign_performance
from tracking.models.conversions import AttributionCredit, Conversion, ConversionTouchpoint, Goal, GoalKind
from tracking.models.visits import AttributionEvidence, Visit


def add_send(session: Session, activity: Activity, contact_id: int, state: SendState, seq: int) -> Send:
    send = Send(
        id=(activity.id << 32) + seq,
        activity_id=activity.id,
        contact_id=contact_id,
        address=f"{contact_id}@x.example",
        recipient_key=f"c:{contact_id}",
        state=state,
        sent_at=clock.now() if state is SendState.SENT else None,
    )
    session.add(send)
    return send


def add_visit(session: Session, number: int, activity_id: int, contact_id: int, hours: float) -> None:
    at = clock.now() - timedelta(hours=hours)
    session.add(
        Visit(
            id=number,
            started_at=at,
            last_at=at,
            visitor=number,
            contact_id=contact_id,
            activity_id=activity_id,
            traffic_source_id=1,
            entry_id=1,
            exit_id=1,
            pages=1,
            active_seconds=1,
            scroll=1,
            attributed_by=int(AttributionEvidence.UTM),
            label=1,
            device=1,
            engaged=True,
            new=True,
            first=True,
            first_in_campaign=True,
            browser="",
            country="",
        )
    )


def test_merge_deduplicates_conversions_and_recomputes_credit(session: Session) -> None:
    campaign = make_campaign(session)
    post, page = (make_activity(session, campaign, channel=channel) for channel in (Channel.SOCIAL, Channel.WEB))
    form = make_form(session, page)
    ann, ana = (make_contact(session).id for _ in range(2))
    session.add(
        Goal(key="sale", name="Sale", kind=GoalKind.EVENT, match="sale", since=clock.now(), created_at=clock.now())
    )
    for number, contact_id in enumerate((ann, ana)):
        lead = Lead(
            contact_id=contact_id,
            campaign_id=campaign.id,
            activity_id=page.id,
            source="web",
            notes=f"note {number}",
            stage=LeadStage.QUALIFIED if number else LeadStage.NEW,
            created_at=clock.now() - timedelta(hours=2 - number),
        )
        session.add(lead)
        session.flush()
        session.add(
            Submission(
                external_id=f"{number}" * 32,
                form_id=form.id,
                campaign_id=campaign.id,
                activity_id=page.id,
                contact_id=contact_id,
                lead_id=lead.id,
                new_lead=True,
                at=lead.created_at,
                answers={},
            )
        )
        session.add(
            Conversion(
                external_id=f"sale:{number}",
                goal="sale",
                contact_id=contact_id,
                at=lead.created_at,
                campaign_id=campaign.id,
                activity_id=page.id,
            )
        )
    add_visit(session, 1, post.id, ana, 5)
    session.flush()
    attribution_ledger.rebuild(session.connection())
    lead_conversions.record_due(session)
    before = campaign_performance(session, SYSTEM, campaign.id).counts
    assert (before.leads, before.conversions, before.first_touch) == (2, 4, 2)
    assert _touched_conversions(session) == 1

    merge_contacts(session, SYSTEM, ann, ana)
    lead_conversions.record_due(session)
    after = campaign_performance(session, SYSTEM, campaign.id).counts
    assert (after.leads, after.conversions) == (1, 2)
    lead = session.scalars(select(Lead)).one()
    assert (lead.contact_id, lead.notes, lead.stage) == (ann, "note 0\n\nnote 1", LeadStage.QUALIFIED)
    assert [one.new_lead for one in session.scalars(select(Submission).order_by(Submission.id))] == [True, False]
    assert {one.contact_id for one in session.scalars(select(Conversion))} == {ann}
    # Ana's visit, hours before Ann's submission, is now the first touch of both conversions.
    assert _touched_conversions(session) == 2
    assert set(session.scalars(select(AttributionCredit.activity_id))) == {post.id}
    assert session.scalars(select(Visit.contact_id)).all() == [ann]


def _touched_conversions(session: Session) -> int:
    return session.scalar(select(func.count(func.distinct(ConversionTouchpoint.conversion_id)))) or 0


def test_nobody_gets_a_mail_twice(session: Session) -> None:
    ann, ana = (make_contact(session).id for _ in range(2))
    one, other, third = (make_activity(session) for _ in range(3))
    states = {}
    for activity, mine, theirs in (
        (one, SendState.SENT, SendState.QUEUED),
        (other, SendState.QUEUED, SendState.QUEUED),
        (third, SendState.SKIPPED, SendState.QUEUED),
    ):
        states[activity.id] = add_send(session, activity, ann, mine, 1), add_send(session, activity, ana, theirs, 2)
    session.flush()
    merge_contacts(session, SYSTEM, ann, ana)
    found = [[send.state.value for send in states[activity.id]] for activity in (one, other, third)]
    assert found == [["sent", "skipped"], ["queued", "skipped"], ["skipped", "queued"]]
    assert {send.contact_id for send in session.scalars(select(Send))} == {ann}
    assert states[one.id][1].recipient_key == f"c:{ana}", "sends stay where they were"
