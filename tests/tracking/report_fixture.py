"""Seeded data for report tests: raw rows, and rollups counted from them row by row.

Deliberately independent of the collector, so that :mod:`tracking.metrics.performance` is checked against numbers that
product code did not compute.
"""

import random
from collections import Counter
from collections.abc import Iterable
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Any

from sqlalchemy import insert
from sqlalchemy.orm import Session

from campaigns.audience.models import Contact
from campaigns.capture.models import Submission
from campaigns.content.models import Link, MessageVersion
from campaigns.delivery.models import Send, SendState, SkipReason
from campaigns.leads.models import Lead, LeadStage
from campaigns.planning.models import Activity, ActivityStatus, Campaign, CampaignStatus, Channel
from tests import factories
from tracking.conversions import attribution_ledger
from tracking.counters.bulk_sql import FirstSeenKey
from tracking.models.conversions import AttributionCredit, AttributionModel, Conversion
from tracking.models.events import Event, FirstSeen, HitKind, HitRollup, SpoolCheckpoint, TrafficLabel

LINKS = ("See the collection", "Book a tasting", "Read the story", "Our address")
STATES = (
    [(SendState.SENT, "")] * 86
    + [(SendState.SKIPPED, SkipReason.SUPPRESSED.value)] * 4
    + [(SendState.SKIPPED, SkipReason.NO_CONSENT.value)] * 3
    + [(SendState.BOUNCED, "")] * 3
    + [(SendState.UNKNOWN, ""), (SendState.FAILED, ""), (SendState.DEFERRED, ""), (SendState.CANCELLED, "")]
)


class Company:
    """Writes campaigns whose recipients behave at random, reproducibly for a seed."""

    contacts: list[int]

    def __init__(self, session: Session, seed: int = 1, contacts: int = 120) -> None:
        self.session, self.random = session, random.Random(seed)
        self.offset = 0
        factories.make_organisation(session)
        rows = [
            {
                "id": 1000 + n,
                "email": f"guest{n}@example.net",
                "first_name": f"Guest{n}",
                "last_name": "",
                "attributes": {},
                "source": "test",
                "created_at": at(0),
                "updated_at": at(0),
            }
            for n in range(contacts)
        ]
        session.execute(insert(Contact), rows)
        self.contacts = [1000 + n for n in range(contacts)]
        session.add(SpoolCheckpoint(id=1, spool="s" * 32, host="localhost", updated_at=at(60)))
        session.flush()

    def campaign(self, name: str, start: datetime, hours: float = 200.0, **values: Any) -> Campaign:
        """Create a campaign with two mailings, a landing page on a web activity, ads and a post, and
        count everything.
        """
        session = self.session
        campaign = factories.make_campaign(
            session,
            name=name,
            status=values.pop("status", CampaignStatus.ACTIVE),
            starts_on=start.date(),
            ends_on=date(2026, 12, 24),
            created_at=start,
            **values,
        )
        version = self._version(start)
        live = {"status": ActivityStatus.LIVE, "launched_at": start, "version_id": version.id}
        mails = [
            factories.make_activity(session, campaign, title="Invitation", cost=Decimal("120.00"), **live),
            factories.make_activity(session, campaign, title="Reminder", **live),
        ]
        web = self._add_activity(campaign, Channel.WEB, "Tasting page", Decimal("300.50"))
        self._add_activity(campaign, Channel.ADS, "Search ads", Decimal("410.25"))
        self._add_activity(campaign, Channel.SOCIAL, "Story on Instagram", None)
        form = factories.make_form(session, web)
        for mail in mails:
            self._add_mailing(mail, start, hours)
        self._add_landing_page_visits(web, form.id, mails, start, hours)
        self.write_rollups([*mails, web])
        return campaign

    def _add_activity(self, campaign: Campaign, channel: Channel, title: str, cost: Decimal | None) -> Activity:
        return factories.make_activity(
            self.session,
            campaign,
            channel=channel,
            title=title,
            cost=cost,
            everybody=False,
            status=ActivityStatus.LIVE,
            launched_at=campaign.created_at,
        )

    def _version(self, start: datetime) -> MessageVersion:
        message = factories.make_message(self.session)
        version = MessageVersion(
            message_id=message.id,
            content_hash=f"{message.id:064}",
            subject="Come and taste",
            preheader="",
            mjml="",
            html="",
            text="",
            language="en",
            from_name="Example",
            from_email="news@example.org",
            reply_to="",
            created_at=start,
        )
        version.links = [
            Link(number=number, url=f"https://example.org/{number}?for={{{{ contact.first_name }}}}", label=label)
            for number, label in enumerate(LINKS, start=1)
        ]
        self.session.add(version)
        self.session.flush()
        return version

    def _add_mailing(self, activity: Activity, start: datetime, hours: float) -> None:
        sends, events = [], []
        for seq, contact in enumerate(self.contacts, start=1):
            send = self._send(activity, seq, contact, start)
            if send["trackable"] and send["state"] is SendState.SENT:
                hits = self._hits(activity, send, start, hours)
                events += hits
                human = [hit for hit in hits if hit["label"] == TrafficLabel.HUMAN]
                clicks = [hit["at"] for hit in human if hit["kind"] == HitKind.CLICK]
                send["first_opened_at"] = min((hit["at"] for hit in human), default=None)
                send["last_opened_at"] = max((hit["at"] for hit in human), default=None)
                send["clicked_at"] = min(clicks, default=None)
            sends.append(send)
        self.session.execute(insert(Send), sends)
        self.session.execute(insert(Event), events)

    def _send(self, activity: Activity, seq: int, contact: int, start: datetime) -> dict[str, Any]:
        state, reason = self.random.choice(STATES)
        accepted = state is SendState.SENT or (state is SendState.BOUNCED and self.random.random() < 0.5)
        return {
            "id": activity.id << 32 | seq,
            "activity_id": activity.id,
            "contact_id": contact,
            "address": f"guest{contact - 1000}@example.net",
            "recipient_key": f"c:{contact}",
            "occasion": "",
            "version_id": activity.email.version_id,
            "state": state,
            "reason": reason,
            "attempts": 1,
            "reply": "250 ok",
            "trackable": accepted and self.random.random() < 0.93,
            "sent_at": start + timedelta(seconds=seq / 20) if accepted else None,
            "bounced_at": start + timedelta(minutes=5) if state is SendState.BOUNCED else None,
            "first_opened_at": None,
            "last_opened_at": None,
            "clicked_at": None,
            "unsubscribed_at": start + timedelta(hours=3) if accepted and self.random.random() < 0.01 else None,
        }

    def _hits(self, activity: Activity, send: dict[str, Any], start: datetime, hours: float) -> list[dict[str, Any]]:
        dice, hits = self.random, []

        def hit(kind: HitKind, label: TrafficLabel, link: int = 0) -> None:
            later = min(dice.expovariate(8 / hours), hours)
            hits.append(self.event(activity.id, kind, label, start + timedelta(hours=later), send["id"], link))

        if dice.random() < 0.25:
            hit(HitKind.OPEN, TrafficLabel.MACHINE)
        if dice.random() < 0.05:
            for number in range(1, len(LINKS) + 1):
                hit(HitKind.CLICK, TrafficLabel.SCANNER, number)
        if dice.random() < 0.46:
            for _ in range(dice.choice((1, 1, 1, 2, 3))):
                hit(HitKind.OPEN, TrafficLabel.HUMAN)
            if dice.random() < 0.30:
                for _ in range(dice.choice((1, 1, 2))):
                    hit(HitKind.CLICK, TrafficLabel.HUMAN, dice.choice((1, 1, 1, 2, 2, 3)))
        elif dice.random() < 0.02:
            hit(HitKind.CLICK, TrafficLabel.HUMAN, 1)  # images off: the click implies the open
        if dice.random() < 0.02:
            hit(
                dice.choice((HitKind.OPEN, HitKind.CLICK)),
                dice.choice((TrafficLabel.SETTLING, TrafficLabel.UNKNOWN)),
                0,
            )
        return [hit | {"link": hit["link"] or 1} if hit["kind"] == HitKind.CLICK else hit for hit in hits]

    def event(
        self, activity_id: int, kind: HitKind, label: TrafficLabel, when: datetime, send_id: int | None, link: int = 0
    ) -> dict[str, Any]:
        self.offset += 64
        return {
            "id": 1 << 40 | self.offset,
            "at": when,
            "kind": kind,
            "label": label,
            "reasons": 0,
            "rules": 1,
            "activity_id": activity_id,
            "send_id": send_id,
            "link": link,
            "network": 0,
            "user_agent_id": 1,
        }

    def _add_landing_page_visits(
        self, web: Activity, form_id: int, mails: list[Activity], start: datetime, hours: float
    ) -> None:
        """Visitors of the landing page. Some become leads, which are credited to the mails."""
        session, dice = self.session, self.random
        views = []
        for contact in dice.sample(self.contacts, len(self.contacts) // 8):
            when = start + timedelta(hours=min(dice.expovariate(6 / hours), hours))
            mail = dice.choice(mails)
            views.append(self.event(web.id, HitKind.VIEW, TrafficLabel.HUMAN, when, mail.id << 32 | (contact - 999)))
            if dice.random() < 0.45:
                lead = Lead(
                    contact_id=contact,
                    campaign_id=web.campaign_id,
                    activity_id=web.id,
                    stage=LeadStage.NEW,
                    source="web",
                    created_at=when + timedelta(minutes=2),
                )
                session.add(lead)
                session.flush()
                self._add_conversion(web, lead, mails, form_id, mail)
        for _ in range(9):
            when = start + timedelta(hours=dice.uniform(0, hours))
            views.append(self.event(web.id, HitKind.VIEW, TrafficLabel.MACHINE, when, None))
        session.execute(insert(Event), views)

    def _add_conversion(self, web: Activity, lead: Lead, mails: list[Activity], form_id: int, mail: Activity) -> None:
        session = self.session
        submission = Submission(
            external_id=f"x{lead.id}",
            form_id=form_id,
            campaign_id=web.campaign_id,
            activity_id=web.id,
            contact_id=lead.contact_id,
            lead_id=lead.id,
            new_lead=True,
            at=lead.created_at,
            answers={"first_name": "Nino"},
            send_id=mail.id << 32 | (lead.contact_id - 999),
        )
        session.add(submission)
        session.flush()
        conversion = Conversion(
            external_id=f"submission:{submission.id}",
            goal="lead",
            campaign_id=web.campaign_id,
            activity_id=web.id,
            contact_id=lead.contact_id,
            lead_id=lead.id,
            at=lead.created_at,
        )
        session.add(conversion)
        session.flush()
        for model in AttributionModel:
            session.add(
                AttributionCredit(
                    conversion_id=conversion.id, model=model, activity_id=self.random.choice(mails).id, share=1.0
                )
            )

    def write_rollups(self, activities: Iterable[Activity]) -> None:
        """Compute first-seen rows and rollups of these activities from their events."""
        session = self.session
        session.flush()
        ids = [activity.id for activity in activities]
        events = session.query(Event).filter(Event.activity_id.in_(ids)).order_by(Event.at, Event.id).all()
        stored: dict[tuple[int, int, int, int], datetime] = {}
        seen: dict[tuple[int, int, int, int], datetime] = {}
        hits: Counter[tuple[int, datetime, int, int, int]] = Counter()
        for event in events:
            marks = {(event.kind, 0), (event.kind, event.link)}
            for kind, link in marks:
                hits[event.activity_id, bucket_start(event.at), kind, link, event.label] += 1
            if event.kind == HitKind.CLICK and event.label == TrafficLabel.HUMAN:
                marks.add((HitKind.OPEN, 0))
            if event.send_id is None or event.label != TrafficLabel.HUMAN:
                continue
            stored.setdefault((event.send_id, event.activity_id, event.kind, event.link), event.at)
            for kind, link in marks:
                seen.setdefault((event.send_id, event.activity_id, kind, link), event.at)
        firsts = Counter((key[1], bucket_start(when), *key[2:], int(TrafficLabel.HUMAN)) for key, when in seen.items())
        rows = [dict(zip(FirstSeenKey._fields, key, strict=True), at=when) for key, when in stored.items()]
        session.execute(insert(FirstSeen), rows)
        names = ("activity_id", "bucket", "kind", "link", "label")
        session.execute(
            insert(HitRollup),
            [
                dict(zip(names, key, strict=True), events=hits[key], uniques=firsts[key])
                for key in sorted(hits.keys() | firsts.keys())
            ],
        )
        attribution_ledger.rebuild(session.connection())


def bucket_start(when: datetime) -> datetime:
    return when.replace(minute=when.minute // 15 * 15, second=0, microsecond=0)


def at(hours: float) -> datetime:
    """The instant ``hours`` after midnight UTC of 24 October 2026, a day before Paris leaves summer time."""
    return datetime(2026, 10, 24, tzinfo=UTC) + timedelta(hours=hours)
