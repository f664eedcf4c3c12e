"""Tests of the contact timeline: order, paging, filters, machine hits, and permissions."""

from datetime import timedelta
from html import unescape

import pytest
from flask.testing import FlaskClient
from sqlalchemy import Engine, insert
from sqlalchemy.orm import Session

from campaigns import db
from campaigns.accounts.actor import PERMISSIONS, SYSTEM, Actor, ActorKind
from campaigns.accounts.models import Role
from campaigns.audience import suppression
from campaigns.audience.models import ConsentEntry, ConsentLevel, ConsentPurpose, Contact, SuppressionReason
from campaigns.delivery.models import Send, SendState, SkipReason
from campaigns.errors import Forbidden, NotFound
from tests import factories
from tests.conftest import FrozenClock
from tests.tracking.conversions.test_goals import make_goal, match_goals, report
from tests.tracking.fixtures import make_mailing
from tests.tracking.report_fixture import Company, at
from tracking.bots.rules import LabelReason
from tracking.collector import collector
from tracking.models.conversions import AttributionModel
from tracking.models.events import Event, HitKind, TrafficLabel
from tracking.reports.contact_timeline import EntryFilter, EntryKind, build_timeline

VIEWER = Actor(ActorKind.USER, 1, "viewer", PERMISSIONS[Role.VIEWER])


def make_contact_with_history(session: Session) -> int:
    """Create a contact with a mail that was opened by a machine, opened, clicked and bounced, and one skipped send."""
    company = Company(session, contacts=1)
    contact, mail, second = company.contacts[0], factories.make_activity(session), factories.make_activity(session)
    second.launched_at = at(50)
    version = company._version(at(0))
    common = {"contact_id": contact, "address": "guest0@example.net", "recipient_key": f"c:{contact}"}
    session.add_all(
        [
            Send(
                id=mail.id << 32 | 1,
                activity_id=mail.id,
                state=SendState.BOUNCED,
                sent_at=at(1),
                bounced_at=at(9),
                version_id=version.id,
                reply="550 no such mailbox",
                **common,
            ),
            Send(
                id=second.id << 32 | 1,
                activity_id=second.id,
                state=SendState.SKIPPED,
                reason=SkipReason.SUPPRESSED.value,
                **common,
            ),
            ConsentEntry(
                contact_id=contact,
                purpose=ConsentPurpose.EMAIL,
                level=ConsentLevel.FULL,
                at=at(0),
                source="form",
                wording="",
                evidence={},
                recorded_by="public",
            ),
        ]
    )
    send_id = mail.id << 32 | 1
    rows = [
        company.event(mail.id, HitKind.OPEN, TrafficLabel.MACHINE, at(2), send_id)
        | {"reasons": int(LabelReason.PREFETCH)},
        company.event(mail.id, HitKind.OPEN, TrafficLabel.HUMAN, at(3), send_id),
        company.event(mail.id, HitKind.CLICK, TrafficLabel.HUMAN, at(4), send_id, 2),
    ]
    session.execute(insert(Event), rows)
    session.flush()
    return contact


def test_entries_are_ordered_by_time(session: Session) -> None:
    found = build_timeline(session, SYSTEM, make_contact_with_history(session))
    assert [entry.entry_kind for entry in found.entries] == [
        EntryKind.MAIL,
        EntryKind.BOUNCE,
        EntryKind.HIT,
        EntryKind.HIT,
        EntryKind.HIT,
        EntryKind.MAIL,
        EntryKind.CONSENT,
    ]
    skipped, bounce, click, opened, machine, mail, _ = found.entries
    assert skipped.skip_reason is SkipReason.SUPPRESSED
    assert bounce.send is not None
    assert bounce.send.reply == "550 no such mailbox"
    assert (click.kind, click.detail) == (HitKind.CLICK, "Book a tasting")
    assert opened.by_machine is False
    assert machine.by_machine
    assert machine.reasons[0].description == LabelReason.PREFETCH.description
    assert mail.subject == "Come and taste"
    assert found.next_before is None


def test_pages_hold_each_entry_once(session: Session) -> None:
    contact = make_contact_with_history(session)
    everything = [entry.at for entry in build_timeline(session, SYSTEM, contact).entries]
    seen, before = [], None
    while True:
        page = build_timeline(session, SYSTEM, contact, before=before, size=2)
        seen += [entry.at for entry in page.entries]
        before = page.next_before
        if before is None:
            break
    assert seen == everything


def test_entries_of_one_instant_stay_on_one_page(session: Session) -> None:
    contact = make_contact_with_history(session)
    for n in range(5):
        session.add(
            ConsentEntry(
                contact_id=contact,
                purpose=ConsentPurpose.TRACKING,
                level=ConsentLevel.NONE,
                at=at(-1),
                source=str(n),
                wording="",
                evidence={},
                recorded_by="public",
            )
        )
    session.flush()
    assert len(build_timeline(session, SYSTEM, contact, size=8).entries) == 12
    assert build_timeline(session, SYSTEM, contact, before=at(-1)).entries == []
    assert len(build_timeline(session, SYSTEM, contact, before=at(-1) + timedelta(seconds=1)).entries) == 5


def test_a_seeded_contact_has_a_lead(session: Session) -> None:
    company = Company(session, contacts=30)
    company.campaign("Harvest", at(3))
    timelines = [build_timeline(session, SYSTEM, contact) for contact in company.contacts]
    steps = {entry.entry_kind for timeline in timelines for entry in timeline.entries}
    assert {EntryKind.MAIL, EntryKind.HIT, EntryKind.FORM, EntryKind.LEAD} <= steps


def test_timeline_requires_permission(session: Session) -> None:
    with pytest.raises(Forbidden):
        build_timeline(session, VIEWER, 1)
    with pytest.raises(NotFound):
        build_timeline(session, SYSTEM, 424242)


def test_timeline_page(coordinator_client: FlaskClient, viewer_client: FlaskClient) -> None:
    with db.transaction() as session:
        contact = make_contact_with_history(session)
        contact_without_history = factories.make_contact(session).id
    page = unescape(coordinator_client.get(f"/contacts/{contact}/timeline").text)
    for words in (
        "Mail picture loaded",
        "Opened a mail",
        "Followed a link",
        "Book a tasting",
        "550 no such mailbox",
        "Suppressed",
        "called itself a prefetch",
        "To receive e-mail",
    ):
        assert words in page
    assert "Nothing yet" in coordinator_client.get(f"/contacts/{contact_without_history}/timeline?before=nonsense").text
    assert viewer_client.get(f"/contacts/{contact}/timeline").status_code == 403
    assert coordinator_client.get("/contacts/999999/timeline").status_code == 404


def test_long_timeline_is_paged(coordinator_client: FlaskClient) -> None:
    with db.transaction() as session:
        company = Company(session, contacts=1)
        mail = factories.make_activity(session)
        send_id = mail.id << 32 | 1
        session.add(
            Send(
                id=send_id,
                activity_id=mail.id,
                contact_id=1000,
                address="guest0@example.net",
                recipient_key="c:1000",
                state=SendState.SENT,
                sent_at=at(0),
            )
        )
        session.flush()
        session.execute(
            insert(Event),
            [company.event(mail.id, HitKind.OPEN, TrafficLabel.HUMAN, at(n), send_id) for n in range(1, 71)],
        )
    first = coordinator_client.get("/contacts/1000/timeline").text
    assert first.count("timeline-entry") == 50
    older = unescape(first.split('hx-get="')[-1].split('"')[0])
    assert coordinator_client.get(older).text.count("timeline-entry") == 21


def test_conversion_shows_touches_and_credit(
    database: Engine, frozen: FrozenClock, coordinator_client: FlaskClient
) -> None:
    mailing = make_mailing()
    mailing.click()
    collector.collect_once()
    with db.transaction() as session:
        make_goal(session)
        email = session.get_one(Contact, mailing.contacts[0]).email
        frozen.at += timedelta(minutes=30)
        report(session, email=email, value="19.90")
        suppression.suppress(session, SYSTEM, email, SuppressionReason.MANUAL)
    match_goals()
    with db.read_only_session() as session:
        found = build_timeline(session, SYSTEM, mailing.contacts[0])
        steps = [entry.entry_kind for entry in found.entries]
        assert {EntryKind.CONVERSION, EntryKind.EVENT, EntryKind.SUPPRESSION, EntryKind.HIT, EntryKind.MAIL} <= set(
            steps
        )
        conversion = next(entry for entry in found.entries if entry.entry_kind is EntryKind.CONVERSION)
        assert sum(share.share for share in conversion.shares if share.model is AttributionModel.LAST_TOUCH) == 1
        assert [touch.event_id is not None for touch in conversion.touches] == [True]
    page = coordinator_client.get(f"/contacts/{mailing.contacts[0]}/timeline").text
    assert "€19.90" in page
    assert "Who earned it?" in page
    assert "Put here by hand" in page


@pytest.mark.parametrize("topic", list(EntryFilter))
def test_topic_filters_entries(session: Session, topic: EntryFilter) -> None:
    contact = make_contact_with_history(session)
    every = [(entry.at, entry.entry_kind) for entry in build_timeline(session, SYSTEM, contact).entries]
    some = [(entry.at, entry.entry_kind) for entry in build_timeline(session, SYSTEM, contact, topic=topic).entries]
    assert set(some) <= set(every)
    assert len(some) == {EntryFilter.MAILS: 3, EntryFilter.HITS: 3, EntryFilter.CONSENT: 1}.get(topic, 0)


def test_people_only_leaves_out_machines(session: Session) -> None:
    found = build_timeline(session, SYSTEM, make_contact_with_history(session), people_only=True)
    assert not any(entry.by_machine for entry in found.entries)
    assert sum(entry.entry_kind is EntryKind.HIT for entry in found.entries) == 2


def test_filters_from_url(coordinator_client: FlaskClient) -> None:
    with db.transaction() as session:
        contact = make_contact_with_history(session)
    url = f"/contacts/{contact}/timeline"
    assert "Nothing of this kind." in coordinator_client.get(f"{url}?topic=visits").text
    assert "checked" in coordinator_client.get(f"{url}?who=people").text
    assert coordinator_client.get(f"{url}?topic=nonsense&who=x").status_code == 200
