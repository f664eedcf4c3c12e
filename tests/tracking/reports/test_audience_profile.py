"""Tests of the audience profile: shares of known values, human hits only, and the bounded sample."""

import pytest
from sqlalchemy.orm import Session

from campaigns.accounts.actor import PUBLIC, SYSTEM
from campaigns.delivery.models import Send, SendState
from campaigns.errors import Forbidden
from campaigns.planning.models import Activity, Channel
from tests import factories
from tests.conftest import NOON
from tracking.models.events import Event, HitKind, TrafficLabel, UserAgent
from tracking.reports import audience_profile
from tracking.reports.audience_profile import build_profile

PHONE = "Mozilla/5.0 (iPhone; CPU iPhone OS 17_1 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko) Mobile/15E148"
FIREFOX = "Mozilla/5.0 (X11; Linux x86_64; rv:120.0) Gecko/20100101 Firefox/120.0"
SCANNER = "Scanner/1.0"
READERS = (("ka", "Asia/Tbilisi"), ("ka", "Asia/Tbilisi"), ("en", None), (None, "Europe/Paris"), (None, None))


@pytest.fixture
def mail(session: Session) -> Activity:
    """A mail with five delivered sends and one bounce; three human opens by phone, one by Firefox, nine by a
    scanner."""
    mail = factories.make_activity(session, launched_at=NOON)
    for number, (language, zone) in enumerate((*READERS, ("fr", "Europe/Paris")), 1):
        contact = factories.make_contact(session, language=language or "", timezone=zone or "")
        session.add(
            Send(
                id=mail.id << 32 | number,
                activity_id=mail.id,
                contact_id=contact.id,
                address=contact.email,
                recipient_key=f"c:{contact.id}",
                occasion="",
                state=SendState.SENT if number <= len(READERS) else SendState.BOUNCED,
                sent_at=NOON,
            )
        )
    events = 0
    for agent, label, hits in (
        (PHONE, TrafficLabel.HUMAN, 3),
        (FIREFOX, TrafficLabel.HUMAN, 1),
        (SCANNER, TrafficLabel.SCANNER, 9),
    ):
        row = UserAgent(digest=agent.encode()[-16:], text=agent)
        session.add(row)
        session.flush()
        for _ in range(hits):
            events += 1
            session.add(
                Event(
                    id=1 << 40 | events,
                    at=NOON,
                    send_id=mail.id << 32 | 1,
                    activity_id=mail.id,
                    user_agent_id=row.id,
                    kind=HitKind.OPEN,
                    label=label,
                    rules=1,
                )
            )
    session.flush()
    return mail


def shares_by_name(found: object) -> dict[str, tuple[int, float | None]]:
    return {one.name: (one.number, one.share) for one in found}  # type: ignore[attr-defined]


def test_shares_are_of_known_values(session: Session, mail: Activity) -> None:
    found = build_profile(session, SYSTEM, mail.campaign_id)
    assert found.recipients == 5
    assert shares_by_name(found.languages) == {"ka": (2, 2 / 3), "en": (1, 1 / 3)}
    assert shares_by_name(found.zones) == {"Asia/Tbilisi": (2, 2 / 3), "Europe/Paris": (1, 1 / 3)}


def test_programs_and_devices_are_those_of_people(session: Session, mail: Activity) -> None:
    found = build_profile(session, SYSTEM, mail.campaign_id)
    assert found.hits == 4
    assert shares_by_name(found.programs) == {"Apple Mail": (3, 0.75), "Firefox": (1, 0.25)}
    assert shares_by_name(found.systems) == {"iPhone": (3, 0.75), "Linux": (1, 0.25)}


def test_profile_samples_newest_recipients(session: Session, mail: Activity, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(audience_profile, "MAX_PER_MAILING", 2)
    found = build_profile(session, SYSTEM, mail.campaign_id)
    assert found.recipients == 2
    assert shares_by_name(found.zones) == {"Europe/Paris": (1, 1.0)}
    for _ in range(audience_profile.MAX_MAILINGS):
        factories.make_activity(session, mail.campaign, launched_at=NOON)
    assert build_profile(session, SYSTEM, mail.campaign_id).recipients == 0


def test_campaign_without_mails_has_empty_profile(session: Session) -> None:
    post = factories.make_activity(session, channel=Channel.SOCIAL, everybody=False, launched_at=NOON)
    found = build_profile(session, SYSTEM, post.campaign_id)
    assert (found.recipients, found.hits, found.languages, found.programs) == (0, 0, [], [])
    with pytest.raises(Forbidden):
        build_profile(session, PUBLIC, post.campaign_id)
