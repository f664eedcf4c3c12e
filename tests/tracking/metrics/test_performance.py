"""Tests of campaign performance against a recount of the raw rows, in three time zones."""

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from itertools import pairwise
from zoneinfo import ZoneInfo

import pytest
from sqlalchemy import event, func, select
from sqlalchemy.orm import Session

from campaigns.accounts.actor import PUBLIC, SYSTEM
from campaigns.delivery.models import Send, SendState
from campaigns.errors import Forbidden, NotFound
from campaigns.leads.models import Lead
from campaigns.planning.models import Activity, ActivityStatus, CampaignStatus, Channel
from tests import factories
from tests.conftest import NOON, FrozenClock
from tests.tracking.report_fixture import Company, at
from tracking.conversions import attribution_ledger
from tracking.metrics import performance as asked
from tracking.metrics.counts import ActivityCounts, HitCounts, MailCounts, sum_counts
from tracking.metrics.performance import CampaignPerformance, campaign_performance
from tracking.metrics.registry import METRICS
from tracking.metrics.series import Interval, campaign_series, interval_starts, last_midnights
from tracking.models.conversions import AttributionCredit, AttributionModel, Conversion
from tracking.models.events import Event, HitKind, HitRollup, TrafficLabel

ZONES = [ZoneInfo(name) for name in ("Asia/Tbilisi", "Asia/Tehran", "Europe/Paris")]


@contextmanager
def count_selects(session: Session) -> Iterator[list[str]]:
    """Collect the SELECT statements that run within the block."""
    statements: list[str] = []
    connection = session.connection()

    def note(_c: object, _cursor: object, statement: str, *_rest: object) -> None:
        if statement.startswith(("SELECT", "WITH")):
            statements.append(statement)

    event.listen(connection, "before_cursor_execute", note)
    try:
        yield statements
    finally:
        event.remove(connection, "before_cursor_execute", note)


def hit_span(found: CampaignPerformance) -> tuple[datetime, datetime]:
    assert found.first_at is not None
    assert found.last_at is not None
    return found.first_at, found.last_at


def test_figures_equal_a_recount_of_raw_rows(session: Session) -> None:
    company = Company(session)
    campaign = company.campaign("Harvest", at(3))
    company.campaign("Other", at(30))
    found = campaign_performance(session, SYSTEM, campaign.id)
    ids = set(session.scalars(select(Activity.id).where(Activity.campaign_id == campaign.id)))
    sends = [send for send in session.scalars(select(Send)) if send.activity_id in ids]
    events = [hit for hit in session.scalars(select(Event)) if hit.activity_id in ids]
    delivered = {send.id: send for send in sends if send.state is SendState.SENT}
    trackable = {id for id, send in delivered.items() if send.trackable}
    human = [hit for hit in events if hit.label == TrafficLabel.HUMAN]
    clickers = {hit.send_id for hit in human if hit.kind == HitKind.CLICK} & trackable
    openers = {hit.send_id for hit in human if hit.kind in (HitKind.OPEN, HitKind.CLICK)} & trackable
    leads = session.scalar(select(func.count()).where(Lead.campaign_id == campaign.id)) or 0
    expected = {
        "audience": len(sends),
        "delivered": len(delivered),
        "trackable": len(trackable),
        "bounced": sum(send.state is SendState.BOUNCED for send in sends),
        "sent": sum(send.sent_at is not None for send in sends),
        "skipped": sum(send.state is SendState.SKIPPED for send in sends),
        "unknown": sum(send.state is SendState.UNKNOWN for send in sends),
        "openers": len(openers),
        "clickers": len(clickers),
        "unsubscribers": sum(send.unsubscribed_at is not None for send in delivered.values()),
        "opens": sum(hit.kind == HitKind.OPEN for hit in human),
        "clicks": sum(hit.kind == HitKind.CLICK for hit in human),
        "views": sum(hit.kind == HitKind.VIEW for hit in human),
        "opens_machine": sum(hit.kind == HitKind.OPEN and hit.label == TrafficLabel.MACHINE for hit in events),
        "clicks_machine": sum(hit.kind == HitKind.CLICK and hit.label == TrafficLabel.SCANNER for hit in events),
        "views_machine": sum(hit.kind == HitKind.VIEW and hit.label == TrafficLabel.MACHINE for hit in events),
        "leads": leads,
        "conversions": leads,
        "leads_first_touch": leads,
        "leads_last_touch": leads,
        "cost": Decimal("830.75"),
        "open_rate": len(openers) / len(trackable),
        "roi": None,
        "click_through_rate": len(clickers) / len(trackable),
        "click_to_open_rate": len(clickers) / len(openers),
        "lead_conversion_rate": leads / len(clickers),
        "cost_per_lead": Decimal("830.75") / leads,
    }
    assert {key: METRICS[key].value(found.counts) for key in expected} == expected
    assert len(openers) > 50
    assert leads > 5


def test_rows_add_up(session: Session) -> None:
    campaign = Company(session).campaign("Harvest", at(3))
    found = campaign_performance(session, SYSTEM, campaign.id)
    additive = replace(found.counts, influenced=None)
    assert sum_counts(line.counts for line in found.activities) == additive
    assert sum_counts(line.counts for line in found.channels) == additive
    assert [line.channel for line in found.channels] == [Channel.EMAIL, Channel.SOCIAL, Channel.ADS, Channel.WEB]
    assert [line.activities for line in found.channels] == [2, 1, 1, 1]


def test_links_equal_a_recount(session: Session) -> None:
    campaign = Company(session).campaign("Harvest", at(3))
    found = campaign_performance(session, SYSTEM, campaign.id)
    assert len(found.links) == 8
    assert sum(line.counts.clicks.human for line in found.links if line.counts.clicks) == sum(
        line.counts.clicks.human for line in found.activities if line.counts.clicks
    )
    for line in found.links:
        hits = session.scalars(
            select(Event).where(
                Event.activity_id == line.activity.id, Event.kind == HitKind.CLICK, Event.link == line.number
            )
        ).all()
        people = {hit.send_id for hit in hits if hit.label == TrafficLabel.HUMAN}
        scanners = sum(hit.label == TrafficLabel.SCANNER for hit in hits)
        assert METRICS["clickers"].value(line.counts) == len(people)
        assert METRICS["clicks_machine"].value(line.counts) == scanners
        assert METRICS["trackable"].value(line.counts) == METRICS["trackable"].value(line.activity.counts)
    assert METRICS["clickers"].value(found.links[-1].counts) == 0  # An unclicked link is listed too.


@pytest.mark.parametrize("zone", ZONES, ids=str)
@pytest.mark.parametrize("hours", [4.0, 60.0, 200.0, 3000.0])
def test_the_chart_equals_a_recount_in_local_time(session: Session, zone: ZoneInfo, hours: float) -> None:
    """The hits begin on 24 October 2026: summer time ends in Paris in the night to the 25th."""
    campaign = Company(session, contacts=30).campaign("Harvest", at(3), hours)
    found = campaign_performance(session, SYSTEM, campaign.id)
    chart = campaign_series(session, campaign.id, zone, *hit_span(found))
    ids = [line.id for line in found.activities]
    recount: Counter[tuple[int, str]] = Counter()
    for hit in session.scalars(select(Event).where(Event.activity_id.in_(ids), Event.label == TrafficLabel.HUMAN)):
        recount[hit.kind, interval_name(hit.at, zone, chart.interval)] += 1
    names = [interval_name(start, zone, chart.interval) for start in chart.starts]
    for kind, column in ((HitKind.OPEN, chart.opens), (HitKind.CLICK, chart.clicks), (HitKind.VIEW, chart.views)):
        shown = Counter({(kind, name): number for name, number in zip(names, column, strict=True) if number})
        assert shown == Counter({key: number for key, number in recount.items() if key[0] == kind})
    assert sum(chart.opens) == METRICS["opens"].value(found.counts)
    assert sum(chart.clicks) == METRICS["clicks"].value(found.counts)
    assert sum(chart.leads) == METRICS["leads"].value(found.counts)
    expected = {4.0: Interval.QUARTER, 60.0: Interval.HOUR, 200.0: Interval.DAY, 3000.0: Interval.WEEK}
    assert chart.interval is expected[hours] or hours == 3000.0


def interval_name(when: datetime, zone: ZoneInfo, interval: Interval) -> str:
    """Return the interval in local time, with the UTC offset so that the repeated hour gives two names."""
    local = when.astimezone(zone)
    if interval is Interval.QUARTER:
        return f"{local:%F %H}:{local.minute // 15} {local.utcoffset()}"
    if interval is Interval.HOUR:
        return f"{local:%F %H} {local.utcoffset()}"
    return f"{local:%F}" if interval is Interval.DAY else f"{local:%G-%V}"


def test_day_of_25_hours_is_one_interval() -> None:
    paris = ZoneInfo("Europe/Paris")
    starts = interval_starts(at(0), at(24 * 20), paris, Interval.DAY)
    lengths = {later.astimezone(UTC) - earlier.astimezone(UTC) for earlier, later in pairwise(starts)}
    assert lengths == {timedelta(hours=24), timedelta(hours=25)}
    hours = interval_starts(at(0), at(48), paris, Interval.HOUR)
    assert len({start.astimezone(UTC) for start in hours}) == len(hours) == 49


def test_last_midnights_are_local() -> None:
    tehran = last_midnights(at(2), ZoneInfo("Asia/Tehran"), 3)
    assert [start.isoformat() for start in tehran] == [
        "2026-10-22T00:00:00+03:30",
        "2026-10-23T00:00:00+03:30",
        "2026-10-24T00:00:00+03:30",
    ]


def test_performance_query_count(session: Session) -> None:
    campaign = Company(session, contacts=24).campaign("Harvest", at(3))
    session.flush()
    with count_selects(session) as statements:
        found = campaign_performance(session, SYSTEM, campaign.id)
        campaign_series(session, campaign.id, ZONES[0], *hit_span(found))
    assert len(statements) <= 17  # One of them reads the time zone of the daily rollups.


def test_unmeasured_counts_are_none(session: Session) -> None:
    campaign = factories.make_campaign(session)
    post = factories.make_activity(session, campaign, channel=Channel.SOCIAL, everybody=False)
    mail = factories.make_activity(session, campaign)
    page = factories.make_activity(session, campaign, channel=Channel.WEB, everybody=False)
    factories.make_form(session, page)
    lines = {line.id: line for line in campaign_performance(session, SYSTEM, campaign.id).activities}
    assert lines[post.id].counts == ActivityCounts(influenced=0)
    assert lines[mail.id].counts == ActivityCounts(influenced=0)
    assert lines[page.id].counts == ActivityCounts(influenced=0, views=HitCounts())
    mail.launched_at, mail.status = at(1), ActivityStatus.LIVE
    lines = {line.id: line for line in campaign_performance(session, SYSTEM, campaign.id).activities}
    assert lines[mail.id].counts == ActivityCounts(
        influenced=0, mails=MailCounts(), opens=HitCounts(), clicks=HitCounts()
    )


def test_test_mails_are_left_out(session: Session) -> None:
    mail = factories.make_activity(session)
    session.add(
        Send(
            id=mail.id << 32 | 1,
            activity_id=mail.id,
            address="a@example.org",
            recipient_key="a:a@example.org",
            occasion="test",
            state=SendState.SENT,
            sent_at=at(1),
        )
    )
    session.flush()
    assert campaign_performance(session, SYSTEM, mail.campaign_id).counts.mails is None


def test_unknown_and_built_in_campaigns_raise_not_found(session: Session) -> None:
    built_in = factories.make_campaign(session, built_in=True)
    for campaign_id in (built_in.id, 99_999):
        with pytest.raises(NotFound):
            campaign_performance(session, SYSTEM, campaign_id)
    with pytest.raises(Forbidden):
        campaign_performance(session, PUBLIC, built_in.id)


def test_credit_across_campaigns_counts_for_its_activity(session: Session) -> None:
    company = Company(session, contacts=41)
    one, two = company.campaign("One", at(3)), company.campaign("Two", at(30))
    other_activity = session.scalars(select(Activity.id).where(Activity.campaign_id == two.id)).first()
    before = campaign_performance(session, SYSTEM, two.id).counts.first_touch
    moved = session.scalars(
        select(AttributionCredit)
        .join(Conversion)
        .where(Conversion.campaign_id == one.id, AttributionCredit.model == AttributionModel.FIRST_TOUCH)
    ).all()[0]
    session.add(
        AttributionCredit(conversion_id=moved.conversion_id, model=moved.model, activity_id=other_activity, share=0.25)
    )
    moved.share = 0.75
    attribution_ledger.recompute(session, [moved.conversion_id])
    assert campaign_performance(session, SYSTEM, two.id).counts.first_touch == before + 0.25
    everything = sum(campaign_performance(session, SYSTEM, campaign.id).counts.first_touch for campaign in (one, two))
    assert everything == session.scalar(select(func.count()).select_from(Conversion))


def test_campaign_is_changing_after_recent_hits(session: Session, frozen: FrozenClock) -> None:
    mail = factories.make_activity(session)
    campaign = mail.campaign
    campaign.status = CampaignStatus.ACTIVE
    assert not campaign_performance(session, SYSTEM, campaign.id).is_changing
    session.add(
        HitRollup(activity_id=mail.id, bucket=NOON, kind=HitKind.OPEN, link=0, label=TrafficLabel.HUMAN, events=1)
    )
    session.flush()
    assert campaign_performance(session, SYSTEM, campaign.id).is_changing
    frozen.at += timedelta(hours=1)
    assert not campaign_performance(session, SYSTEM, campaign.id).is_changing
    assert not campaign_performance(session, SYSTEM, campaign.id).is_over
    campaign.status = CampaignStatus.FINISHED
    assert campaign_performance(session, SYSTEM, campaign.id).is_over


def test_activity_lines_of_many_campaigns_take_eight_queries(session: Session) -> None:
    company = Company(session, contacts=30)
    campaigns = [company.campaign(f"Campaign {n}", at(n)) for n in range(4)]
    with count_selects(session) as statements:
        lines = asked.activity_rows(session, [campaign.id for campaign in campaigns])
    assert len(statements) == 8
    for campaign in campaigns:
        mine = sum_counts(line.counts for line in lines if line.campaign_id == campaign.id)
        assert mine == replace(campaign_performance(session, SYSTEM, campaign.id).counts, influenced=None)
