"""Tests that every report shows the same value for a metric: page, drawer, CSV, API and shared report.

The expected values come from a recount of the raw rows that shares no code with the product. The data spans the end of
summer time in Paris and has late bounces, relabelled events, purchases in several currencies, a contact without
tracking consent, two merged contacts, and web visits.
"""

import csv
import io
import re
from datetime import date, datetime, timedelta
from decimal import Decimal
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from sqlalchemy import Engine, select, update
from sqlalchemy.orm import Session

from campaigns import db
from campaigns.accounts import api_keys
from campaigns.accounts.actor import SYSTEM, Actor
from campaigns.accounts.models import Organisation, Role, User
from campaigns.audience.contact_merge import merge_contacts
from campaigns.delivery.models import Send, SendState
from campaigns.leads.models import Lead
from campaigns.planning.models import Activity
from tests.tracking.report_fixture import Company, at, bucket_start
from tracking.counters.periods import Period
from tracking.jobs import counter_check
from tracking.metrics.comparison import HEADLINE_METRICS, MAIL_METRICS, WEB_METRICS, PeriodQuery, campaign_metrics
from tracking.metrics.performance import campaign_performance
from tracking.metrics.queries import ReportQuery
from tracking.metrics.registry import METRICS, Unit
from tracking.models.conversions import AttributionCredit, AttributionModel, Conversion, ConversionTouchpoint
from tracking.models.events import Event, HitKind, SharedReport, TrafficLabel
from tracking.models.visits import Visit, VisitRollup
from tracking.reports import drilldown, exports, shared_reports

ZONES = ("Asia/Tbilisi", "Asia/Tehran", "Europe/Paris")
PERIODS = (Period(), Period(date(2026, 10, 24), date(2026, 10, 25)), Period(date(2026, 10, 25), date(2026, 10, 31)))


def seed(session: Session) -> int:
    """Create a campaign with the difficult cases and an unrelated one; return the first campaign's id."""
    company = Company(session, contacts=60)
    campaign = company.campaign("Harvest", at(20))
    company.campaign("Other", at(30))
    activities = session.scalars(select(Activity).where(Activity.campaign_id == campaign.id)).all()
    ids = [activity.id for activity in activities]
    sends = session.scalars(select(Send).where(Send.activity_id.in_(ids), Send.state == SendState.SENT)).all()
    _late_bounces([send for send in sends if send.first_opened_at][:3])
    next(send for send in sends if send.state is SendState.SENT).complained_at = at(91)
    sends[-1].trackable = False  # Without tracking consent: no event may refer to the send.
    sends[-1].first_opened_at = sends[-1].last_opened_at = sends[-1].clicked_at = None
    session.execute(update(Event).where(Event.send_id == sends[-1].id).values(send_id=None))
    _purchases(session, campaign.id, activities[2].id, ids[:2], company.contacts)
    _visits(session, ids, company.contacts)
    session.flush()
    _relabel_opens(session, ids)
    activities[2].starts_on, activities[2].ends_on = date(2026, 10, 25), date(2026, 11, 2)
    session.flush()
    merge_contacts(session, SYSTEM, company.contacts[1], company.contacts[0])  # Both have sends, purchases and visits.
    return campaign.id


def _late_bounces(sends: list[Send]) -> None:
    for send in sends:
        send.state, send.bounced_at = SendState.BOUNCED, at(90)
    for send, reason in zip(sends, ("hard", "policy", "soft"), strict=True):
        send.reason = reason


def _purchases(session: Session, campaign_id: int, activity_id: int, mails: list[int], contacts: list[int]) -> None:
    """Create six purchases: own currency, one with an exchange rate, one without; with settling and settled touches."""
    for number in range(6):
        waits = number == 5
        conversion = Conversion(
            external_id=f"order:{number}",
            goal="order",
            campaign_id=campaign_id,
            activity_id=activity_id,
            contact_id=contacts[number],
            at=at(22 + 7 * number),
            amount=Decimal("10.10") * (number + 1),
            currency="IRR" if waits else "USD" if number % 2 else "",
            value=None if waits else Decimal("3.33") * (number + 1),
        )
        session.add(conversion)
        session.flush()
        for position, mail in enumerate(mails if number % 2 else mails[:1]):
            session.add(
                ConversionTouchpoint(
                    conversion_id=conversion.id,
                    position=position,
                    activity_id=mail,
                    kind="click",
                    source_id=number,
                    at=conversion.at - timedelta(hours=position + 1),
                    settling=number == 4,
                )
            )
        for model, mail in ((AttributionModel.FIRST_TOUCH, mails[0]), (AttributionModel.LAST_TOUCH, mails[-1])):
            session.add(AttributionCredit(conversion_id=conversion.id, model=model, activity_id=mail, share=1.0))


def _visits(session: Session, ids: list[int], contacts: list[int]) -> None:
    """Create visits and their rollups, counted here row by row."""
    counters: dict[tuple[int, datetime, int], VisitRollup] = {}
    for number in range(40):
        started = at(20) + timedelta(minutes=47 * number)
        label = (TrafficLabel.HUMAN, TrafficLabel.HUMAN, TrafficLabel.SCANNER)[number % 3]
        visit = Visit(
            id=7 << 40 | number,
            started_at=started,
            last_at=started + timedelta(minutes=3),
            visitor=number // 2,
            activity_id=ids[number % 3],
            traffic_source_id=1,
            entry_id=1,
            exit_id=1,
            pages=1 + number % 4,
            active_seconds=number * 3,
            scroll=50,
            attributed_by=1,
            label=label,
            device=1,
            engaged=number % 4 > 0,
            new=number % 2 == 0,
            first=number % 2 == 0,
            first_in_campaign=number % 2 == 0,
            browser="Firefox",
            country="GE",
            contact_id=contacts[number] if number % 5 == 0 else None,
        )
        session.add(visit)
        key = (visit.activity_id or 0, bucket_start(started), int(label))
        kept = counters.setdefault(
            key,
            VisitRollup(
                activity_id=key[0],
                bucket=key[1],
                channel_group=1,
                label=key[2],
                visits=0,
                visitors=0,
                campaign_visitors=0,
                engaged=0,
                active_seconds=0,
                pages=0,
                new=0,
                aggregate=0,
            ),
        )
        kept.visits += 1
        kept.campaign_visitors += visit.first_in_campaign
        kept.engaged += visit.engaged
        kept.active_seconds += visit.active_seconds
        kept.pages += visit.pages
        kept.new += visit.new
    session.add_all(counters.values())


def _relabel_opens(session: Session, ids: list[int]) -> None:
    """Relabel some human opens as machine opens, then recompute counters and milestones."""
    query = select(Event).where(
        Event.activity_id.in_(ids), Event.label == TrafficLabel.HUMAN, Event.kind == HitKind.OPEN
    )
    for event in session.scalars(query.order_by(Event.id)).all()[:7]:
        event.label = TrafficLabel.MACHINE
    session.flush()
    for activity_id in ids:
        counter_check.rebuild(session, activity_id)
    for send in session.scalars(select(Send).where(Send.activity_id.in_(ids))).all():
        hits = session.scalars(select(Event).where(Event.send_id == send.id, Event.label == TrafficLabel.HUMAN)).all()
        send.first_opened_at = min((hit.at for hit in hits if hit.kind != HitKind.VIEW), default=None)
        send.clicked_at = min((hit.at for hit in hits if hit.kind == HitKind.CLICK), default=None)
    session.flush()
    session.expire_all()


class Recount:
    """Recount of every metric from the raw rows, each instant converted to local time."""

    def __init__(self, session: Session, campaign_id: int, zone: ZoneInfo, period: Period) -> None:
        self.zone, self.period = zone, period
        self.activities = session.scalars(select(Activity).where(Activity.campaign_id == campaign_id)).all()
        ids = {activity.id for activity in self.activities}
        self.ids = ids
        self.sends = [
            send
            for send in session.scalars(select(Send))
            if send.activity_id in ids and send.occasion == "" and self.in_period(send.sent_at or send.bounced_at)
        ]
        self.events = [e for e in session.scalars(select(Event)) if e.activity_id in ids and self.in_period(e.at)]
        self.leads = [one for one in session.scalars(select(Lead)) if one.campaign_id == campaign_id]
        self.leads = [lead for lead in self.leads if self.in_period(lead.created_at)]
        everything = session.scalars(select(Conversion)).all()
        self.all_conversions = {one.id: one for one in everything if self.in_period(one.at)}
        self.conversions = [one for one in self.all_conversions.values() if one.campaign_id == campaign_id]
        self.credits = [one for one in session.scalars(select(AttributionCredit)) if one.activity_id in ids]
        self.touches = [one for one in session.scalars(select(ConversionTouchpoint)) if one.activity_id in ids]
        visits = session.scalars(select(Visit).where(Visit.label == TrafficLabel.HUMAN)).all()
        self.visits = [one for one in visits if one.activity_id in ids and self.in_period(one.started_at)]

    def in_period(self, moment: datetime | None) -> bool:
        if self.period.first is None or self.period.last is None:
            return True
        return moment is not None and self.period.first <= moment.astimezone(self.zone).date() <= self.period.last

    def metrics(self) -> dict[str, Any]:
        sent = [send for send in self.sends if send.state is SendState.SENT]
        bounced = [send for send in self.sends if send.state is SendState.BOUNCED]
        returned = [send for send in bounced if send.sent_at]
        tracked = [send for send in sent if send.trackable]
        openers = [send for send in tracked if send.first_opened_at or send.clicked_at]
        clickers = [send for send in tracked if send.clicked_at]
        values = [one.value for one in self.conversions if one.value is not None]
        cost = sum((self.cost(activity) for activity in self.activities), Decimal(0))
        revenue = sum(values, Decimal(0)) if values else None
        influenced = {touch.conversion_id for touch in self.touches if not touch.settling}
        expected: dict[str, Any] = {
            "audience": len(self.sends),
            "sent": len(sent) + len(returned),
            "delivered": len(sent),
            "bounced": len(bounced),
            "refused": len(bounced) - len(returned),
            "answered": len(sent) + len(bounced),
            "hard_bounces": sum(send.reason == "hard" for send in bounced),
            "blocked": sum(send.reason == "policy" for send in bounced),
            "soft_bounces": sum(send.reason not in ("hard", "policy") for send in bounced),
            "complainers": sum(send.complained_at is not None for send in sent),
            "trackable": len(tracked),
            "openers": len(openers),
            "clickers": len(clickers),
            "unsubscribers": sum(send.unsubscribed_at is not None for send in sent),
            "leads": len(self.leads),
            "conversions": len(self.conversions),
            "revenue": revenue,
            "cost": cost,
            "return": None if revenue is None or cost is None else revenue - cost,
            "influenced": len(influenced & self.all_conversions.keys()),
            "waiting": self.sends_in_states("queued", "sending", "deferred", "held"),
            "unknown": self.sends_in_states("unknown"),
            "skipped": self.sends_in_states("skipped"),
            "failed": self.sends_in_states("failed", "cancelled"),
            "visits": len(self.visits),
            "visitors": sum(one.first_in_campaign for one in self.visits),
            "engaged_visits": sum(one.engaged for one in self.visits),
            "unengaged_visits": sum(not one.engaged for one in self.visits),
            "active_seconds": sum(one.active_seconds for one in self.visits),
            "pages_seen": sum(one.pages for one in self.visits),
            "new_visitors": sum(one.new for one in self.visits),
        }
        for model, word in ((AttributionModel.FIRST_TOUCH, "first"), (AttributionModel.LAST_TOUCH, "last")):
            mine = [one for one in self.credits if one.model == model and one.conversion_id in self.all_conversions]
            expected[f"leads_{word}_touch"] = sum(one.share for one in mine)
            credited = [self.all_conversions[one.conversion_id].value for one in mine]
            worth = [value for value in credited if value is not None]
            expected[f"revenue_{word}_touch"] = sum(worth, Decimal(0)) if worth else None
        for kind, word in ((HitKind.OPEN, "opens"), (HitKind.CLICK, "clicks"), (HitKind.VIEW, "views")):
            for suffix, labels in (
                ("", {TrafficLabel.HUMAN}),
                ("_settling", {TrafficLabel.SETTLING}),
                ("_machine", {TrafficLabel.MACHINE, TrafficLabel.SCANNER}),
                ("_unknown", {TrafficLabel.UNKNOWN}),
            ):
                expected[word + suffix] = sum(one.kind == kind and one.label in labels for one in self.events)
        expected.pop("views_unknown")
        return expected | {key: self.ratio(expected, *pair) for key, pair in RATES.items()}

    def cost(self, activity: Activity) -> Decimal:
        """Return the activity's cost within the period, from the cost of each of its days."""
        if activity.cost is None or self.period.first is None or self.period.last is None:
            return activity.cost or Decimal(0)
        assert activity.launched_at is not None
        first = activity.starts_on or activity.launched_at.astimezone(self.zone).date()
        days = ((activity.ends_on or first) - first).days + 1
        shares = [(activity.cost * day / days).quantize(Decimal("0.01")) for day in range(days + 1)]
        parts = {first + timedelta(days=n): shares[n + 1] - shares[n] for n in range(days)}
        return sum((part for day, part in parts.items() if self.period.first <= day <= self.period.last), Decimal(0))

    def sends_in_states(self, *states: str) -> int:
        return sum(send.state.value in states for send in self.sends)

    @staticmethod
    def ratio(values: dict[str, Any], numerator: str, denominator: str) -> Any:
        part, whole = values[numerator], values[denominator]
        return None if part is None or not whole else Decimal(part) / Decimal(whole)


RATES = {
    "open_rate": ("openers", "trackable"),
    "click_through_rate": ("clickers", "trackable"),
    "click_to_open_rate": ("clickers", "openers"),
    "bounce_rate": ("bounced", "answered"),
    "hard_bounce_rate": ("hard_bounces", "answered"),
    "soft_bounce_rate": ("soft_bounces", "answered"),
    "complaint_rate": ("complainers", "delivered"),
    "unsubscribe_rate": ("unsubscribers", "delivered"),
    "delivery_rate": ("delivered", "sent"),
    "lead_conversion_rate": ("leads", "visitors"),
    "lead_generation_rate": ("leads", "delivered"),
    "visit_rate": ("visitors", "clickers"),
    "conversions_per_lead": ("conversions", "leads"),
    "cost_per_lead": ("cost", "leads"),
    "roi": ("return", "cost"),
    "web_bounce_rate": ("unengaged_visits", "visits"),
    "time_on_page": ("active_seconds", "visitors"),
    "time_per_visit": ("active_seconds", "visits"),
    "new_visitor_share": ("new_visitors", "visits"),
}


def nearly_equal(one: Any, other: Any) -> bool:
    if one is None or other is None:
        return one is other
    return abs(float(one) - float(other)) < 1e-6


@pytest.mark.parametrize("name", ZONES)
def test_metrics_equal_recount_everywhere(session: Session, name: str) -> None:
    zone, campaign_id = ZoneInfo(name), seed(session)
    for period in PERIODS:
        expected = Recount(session, campaign_id, zone, period).metrics()
        assert expected.keys() == METRICS.keys()
        query = ReportQuery(period.window(zone))
        found = campaign_performance(session, SYSTEM, campaign_id, query)
        comparisons, _ = campaign_metrics(session, SYSTEM, campaign_id, PeriodQuery(period), zone)
        sheet = next(csv.DictReader(io.StringIO(exports.figures_csv(found).lstrip("\ufeff"))))
        for key, metric in METRICS.items():
            value = metric.value(found.counts)
            where = (name, period.key, key, value, expected[key])
            assert nearly_equal(value, expected[key]), where
            assert comparisons[key].reading.value == value, where
            cell = sheet[key]
            digits = 0.005 if isinstance(value, Decimal) else 1e-6
            assert (cell == "") == (value is None), where
            assert value is None or abs(float(cell) - float(value)) <= digits, where
            if drilldown.has_rows(key):
                rows = drilldown.recount(session, drilldown.build_drilldown(session, SYSTEM, campaign_id, key, query))
                assert nearly_equal(rows, value or 0), (*where, rows)
            else:
                assert drilldown.metrics_with_rows(key), where
        assert expected["leads"] or not period.is_all_time


@pytest.mark.parametrize("name", ZONES)
def test_event_dated_metrics_equal_recount(session: Session, name: str) -> None:
    zone, campaign_id = ZoneInfo(name), seed(session)
    for period in PERIODS[1:]:
        query = ReportQuery(period.window(zone), cohort=False)
        counts = campaign_performance(session, SYSTEM, campaign_id, query).counts
        recount = Recount(session, campaign_id, zone, period)
        everybody = Recount(session, campaign_id, zone, Period())
        firsts: dict[str, dict[int, datetime]] = {"openers": {}, "clickers": {}}
        for event in sorted(everybody.events, key=lambda event: event.at):
            if event.send_id is None or event.label != TrafficLabel.HUMAN or event.kind == HitKind.VIEW:
                continue
            firsts["openers"].setdefault(event.send_id, event.at)
            if event.kind == HitKind.CLICK:
                firsts["clickers"].setdefault(event.send_id, event.at)
        for key, instants in firsts.items():
            expected = sum(recount.in_period(moment) for moment in instants.values())
            assert METRICS[key].value(counts) == expected
            assert (
                drilldown.recount(session, drilldown.build_drilldown(session, SYSTEM, campaign_id, key, query))
                == expected
            )
        for key in ("delivered", "trackable"):
            assert drilldown.recount(
                session, drilldown.build_drilldown(session, SYSTEM, campaign_id, key, query)
            ) == METRICS[key].value(counts)


def test_api_and_pages_equal_recount(owner_client: Any, database: Engine) -> None:
    with db.transaction() as session:
        campaign_id = seed(session)
        zone = ZoneInfo(session.scalars(select(Organisation)).one().timezone)
        expected = {key: Recount(session, campaign_id, zone, PERIODS[2]).metrics()[key] for key in METRICS}
    with db.transaction() as session:
        owner = session.scalars(select(User).where(User.role == Role.OWNER)).first()
        assert owner is not None
        _, secret = api_keys.create_key(session, Actor.of_user(owner), name="Figures", scopes=["figures"])
    answer = owner_client.get(
        f"/api/v1/campaigns/{campaign_id}/figures?period={PERIODS[2].key}",
        headers={"Authorization": f"Bearer {secret}"},
    )
    assert answer.status_code == 200, answer.text
    for key, figure in answer.json["figures"].items():
        digits = 0.005 if figure["unit"] == "money" else 1e-6
        assert (figure["value"] is None) == (expected[key] is None), key
        assert expected[key] is None or abs(float(figure["value"]) - float(expected[key])) <= digits, key
    page = owner_client.get(f"/campaigns/{campaign_id}/figures/leads?period={PERIODS[2].key}").text
    assert page.count("<tr") - 1 == expected["leads"]
    lines = owner_client.get(f"/campaigns/{campaign_id}/figures/leads.csv?period={PERIODS[2].key}").text
    assert len(lines.splitlines()) - 1 == expected["leads"]
    page = owner_client.get(f"/campaigns/{campaign_id}/performance?period={PERIODS[2].key}").text
    for key in {*HEADLINE_METRICS, *MAIL_METRICS, *WEB_METRICS}:
        tile = re.search(rf'id="tile-{key}".*?tile-value[^>]*>(.*?)</dd>', page, re.DOTALL)
        drawer = re.search(rf'id="why-{key}".*?why-value[^>]*>(.*?)</p>', page, re.DOTALL)
        assert tile, key
        assert drawer, key
        assert text_of(tile[1]) == text_of(drawer[1]), key
        assert shows_number(tile[1], expected[key], METRICS[key].unit), (key, tile[1], expected[key])


def test_shared_report_equals_recount(owner_client: Any, database: Engine) -> None:
    with db.transaction() as session:
        campaign_id = seed(session)
        expected = Recount(session, campaign_id, ZoneInfo("UTC"), Period()).metrics()
    assert owner_client.post(f"/campaigns/{campaign_id}/shares", data={"days": "7"}).status_code == 303
    link = re.search(r'value="http://localhost(/s/[^"]+)"', owner_client.get(f"/campaigns/{campaign_id}/shares").text)
    assert link
    page = owner_client.application.test_client().get(link[1]).text
    with db.read_only_session() as session:
        kept = shared_reports.parse_snapshot(session.scalars(select(SharedReport)).one())
    assert {figure.metric.key for figure in kept.figures} == METRICS.keys()
    for figure in kept.figures:
        assert nearly_equal(figure.value, expected[figure.metric.key]), figure.metric.key
    for key in shared_reports.HEADLINE_METRICS:
        tile = re.search(rf'>{METRICS[key].label}</dt><dd class="tile-value numeric">(.*?)</dd>', page, re.DOTALL)
        assert tile, key
        assert shows_number(tile[1], expected[key], METRICS[key].unit), (key, tile[1], expected[key])


def text_of(html: str) -> str:
    return re.sub(r"<[^>]+>", "", html).strip()


def shows_number(html: str, value: Any, unit: Unit) -> bool:
    """Return whether the HTML shows this number, within its rounding."""
    if value is None:
        return "not measured" in html
    number = float(re.sub(r"[^0-9.-]", "", text_of(html)))
    digits = {Unit.RATE: 0.0006, Unit.MONEY: 0.006, Unit.SECONDS: 0.06}.get(unit, 0.006)
    return abs(number / (100 if unit is Unit.RATE else 1) - float(value)) <= digits
