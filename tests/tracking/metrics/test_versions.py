"""Tests of campaign versions: a version changes with each metric of its campaign, and only then."""

from collections.abc import Callable, Mapping

from sqlalchemy.orm import Session

from campaigns.delivery.models import SendState
from campaigns.delivery.sends.counters import SendCount, SendFlag
from campaigns.leads.models import Lead
from campaigns.planning.models import ActivityStatus
from tests import factories
from tests.conftest import NOON, FrozenClock
from tracking.metrics.versions import campaign_versions
from tracking.models.events import HitKind, TotalHitRollup, TrafficLabel
from tracking.models.visits import TotalVisitRollup


def test_version_changes_with_each_kind_of_count(session: Session, frozen: FrozenClock) -> None:
    mail = factories.make_activity(session, status=ActivityStatus.LIVE)
    other = factories.make_activity(session, status=ActivityStatus.LIVE)
    contact = factories.make_contact(session)
    hit = TotalHitRollup(
        activity_id=mail.id, link=0, kind=HitKind.OPEN, label=TrafficLabel.SETTLING, events=3, uniques=1
    )
    visit = TotalVisitRollup(activity_id=mail.id, label=TrafficLabel.HUMAN, visits=1)
    sent = SendCount(activity_id=mail.id, bucket=NOON, state=SendState.SENT, flags=SendFlag.ACCEPTED, shard=0, count=10)
    lead = Lead(
        contact_id=contact.id, campaign_id=mail.campaign_id, activity_id=mail.id, source="form", created_at=NOON
    )

    def settle() -> None:
        session.delete(hit)
        session.flush()
        session.add(
            TotalHitRollup(
                activity_id=mail.id, link=0, kind=HitKind.OPEN, label=TrafficLabel.HUMAN, events=3, uniques=1
            )
        )

    def engage() -> None:
        visit.engaged = 1

    def open_mail() -> None:
        sent.flags = SendFlag.ACCEPTED | SendFlag.OPENED

    def finish() -> None:
        mail.status = ActivityStatus.FINISHED

    def versions() -> Mapping[int, str]:
        session.flush()
        return campaign_versions(session, [mail.campaign_id, other.campaign_id, 999_999])

    before = versions()
    assert set(before) == {mail.campaign_id, other.campaign_id}
    steps: list[Callable[[], object]] = [
        lambda: session.add(hit),
        settle,
        lambda: session.add(visit),
        engage,
        lambda: session.add(sent),
        open_mail,
        lambda: session.add(lead),
        finish,
    ]
    for step in steps:
        step()
        after = versions()
        assert after == versions()
        assert after[mail.campaign_id] != before[mail.campaign_id], step
        assert after[other.campaign_id] == before[other.campaign_id]
        before = after
