"""Tests that the attribution ledger follows every change of conversions, touchpoints and credit."""

from collections.abc import Iterator
from datetime import timedelta
from decimal import Decimal

import pytest
from sqlalchemy import delete, select, update
from sqlalchemy.orm import Session

from campaigns.accounts.actor import SYSTEM
from campaigns.audience.models import Contact
from campaigns.planning import activities
from campaigns.planning.models import Activity, Channel
from tests import factories
from tests.conftest import NOON
from tracking.conversions import attribution_ledger, currency
from tracking.conversions.attribution import Touchpoint, assign_credit
from tracking.counters.periods import Window
from tracking.jobs import counter_check, lead_conversions
from tracking.metrics.counts import ActivityCounts
from tracking.metrics.queries import ReportQuery, load_report_data
from tracking.models.attribution import ConversionAttribution, DailyAttribution, TotalAttribution
from tracking.models.conversions import Conversion, ConversionTouchpoint


@pytest.fixture
def plan(session: Session) -> Iterator[tuple[Activity, Activity, Activity]]:
    """Two mails and a page of one campaign; the teardown checks the ledger against its sources."""
    factories.make_organisation(session)
    campaign = factories.make_campaign(session)
    mails = [factories.make_activity(session, campaign) for _ in range(2)]
    page = factories.make_activity(session, campaign, channel=Channel.WEB, everybody=False)
    yield mails[0], mails[1], page
    assert attribution_ledger.find_mismatches(session.connection()) == []


def add_conversion(
    session: Session, page: Activity, *touches: tuple[Activity, bool], hours: int = 0, amount: str = ""
) -> Conversion:
    conversion = Conversion(
        external_id=f"order:{hours}",
        goal="order",
        campaign_id=page.campaign_id,
        activity_id=page.id,
        contact_id=factories.make_contact(session).id,
        at=NOON + timedelta(hours=hours),
        amount=Decimal(amount) if amount else None,
        currency="USD" if amount else "",
    )
    session.add(conversion)
    session.flush()
    clicks = [
        Touchpoint(one.id, "click", number, conversion.at - timedelta(hours=9 - number), settling)
        for number, (one, settling) in enumerate(touches)
    ]
    assign_credit(session, conversion, clicks)
    return conversion


def test_touches_count_once_for_activity_channel_and_campaign(
    session: Session, plan: tuple[Activity, Activity, Activity]
) -> None:
    one, two, page = plan
    add_conversion(session, page, (one, False), (two, False), (one, False))
    add_conversion(session, page, (two, False), (page, False), hours=1)
    add_conversion(session, page, (two, True), hours=2)
    add_conversion(session, page, hours=3)
    found = load_report_data(session, [page.campaign_id])
    assert {id: counts.influenced for id, counts in found.counts.items()} == {one.id: 1, two.id: 2, page.id: 1}
    assert found.influenced == {Channel.EMAIL: 2, Channel.WEB: 1, None: 2}
    assert [found.counts[id].first_touch for id in (one.id, two.id, page.id)] == [1, 2, 1]
    assert [found.counts[id].last_touch for id in (one.id, two.id, page.id)] == [1, 1, 2]
    assert [found.counts[id].conversions for id in (one.id, two.id, page.id)] == [0, 0, 4]
    # A conversion after the window isn't counted, and two adjacent windows add up to the total.
    early = load_report_data(session, [page.campaign_id], ReportQuery(Window(None, NOON + timedelta(hours=1)))).counts
    late = load_report_data(session, [page.campaign_id], ReportQuery(Window(NOON + timedelta(hours=1), None))).counts
    assert early[page.id].conversions == 1
    assert {id: early[id] + late[id] for id in early} == {id: summable(found.counts[id]) for id in early}


def test_period_sums_whole_days_and_partial_edges(session: Session, plan: tuple[Activity, Activity, Activity]) -> None:
    one, _two, page = plan
    hours = (0, 11, 12, 13, 30, 36, 40, 59, 60, 61)
    for number, hour in enumerate(hours):
        add_conversion(session, page, (one, False), hours=hour, amount=f"{number}.50" if number % 3 else "")
    currency.set_rate(session, SYSTEM, currency="USD", valid_from=NOON.date() - timedelta(days=9), rate="0.5")
    cuts = [None, *(NOON + timedelta(hours=hour) for hour in (5, 12, 13, 36.5, 60, 80))]
    for since in cuts:
        for until in cuts:
            if (since is None and until is None) or (since and until and since > until):
                continue
            inside = [
                at
                for at in hours
                if (not since or NOON + timedelta(hours=at) >= since)
                and (not until or NOON + timedelta(hours=at) < until)
            ]
            worth = [Decimal(hours.index(at)) / 2 + Decimal("0.25") for at in inside if hours.index(at) % 3]
            counts = load_report_data(session, [page.campaign_id], ReportQuery(Window(since, until))).counts
            assert counts[page.id].conversions == counts[one.id].influenced == len(inside), (since, until)
            assert counts[one.id].first_touch_revenue == (sum(worth) if worth else None)


def summable(counts: ActivityCounts) -> ActivityCounts:
    """The counts after an addition, which drops the values that can't be added."""
    return counts + ActivityCounts()


def test_settled_human_click_counts_as_touchpoint(session: Session, plan: tuple[Activity, Activity, Activity]) -> None:
    one, _two, page = plan
    add_conversion(session, page, (one, True))
    assert load_report_data(session, [page.campaign_id]).influenced[None] == 0
    lead_conversions.recredit_due(session)  # A click missing from the event log counts as human.
    assert not session.scalar(select(ConversionTouchpoint.settling))
    assert load_report_data(session, [page.campaign_id]).influenced == {Channel.EMAIL: 1, Channel.WEB: 0, None: 1}


def test_late_exchange_rate_updates_ledger_values(session: Session, plan: tuple[Activity, Activity, Activity]) -> None:
    one, two, page = plan
    add_conversion(session, page, (one, False), (two, False), amount="12.34")
    assert load_report_data(session, [page.campaign_id]).counts[page.id].revenue is None
    currency.set_rate(session, SYSTEM, currency="USD", valid_from=NOON.date() - timedelta(days=9), rate="0.5")
    found = load_report_data(session, [page.campaign_id]).counts
    assert found[page.id].revenue == found[one.id].first_touch_revenue == Decimal("6.17")
    assert found[two.id].last_touch_revenue == Decimal("6.17")
    assert found[one.id].last_touch_revenue is found[one.id].revenue is None


def test_channel_change_updates_ledger(session: Session, plan: tuple[Activity, Activity, Activity]) -> None:
    one, two, page = plan
    add_conversion(session, page, (one, False), (two, False))
    assert load_report_data(session, [page.campaign_id]).influenced == {Channel.EMAIL: 1, Channel.WEB: 0, None: 1}
    activities.update_activity(session, SYSTEM, two, channel=Channel.SOCIAL)
    influenced = load_report_data(session, [page.campaign_id]).influenced
    assert influenced == {Channel.EMAIL: 1, Channel.SOCIAL: 1, Channel.WEB: 0, None: 1}
    activities.update_activity(session, SYSTEM, one, channel=Channel.SOCIAL)
    assert load_report_data(session, [page.campaign_id]).influenced == {Channel.SOCIAL: 1, Channel.WEB: 0, None: 1}
    assert attribution_ledger.find_mismatches(session.connection()) == []


def test_deleted_contact_removes_its_ledger_rows(session: Session, plan: tuple[Activity, Activity, Activity]) -> None:
    one, _two, page = plan
    deleted, kept = add_conversion(session, page, (one, False)), add_conversion(session, page, hours=1)
    session.execute(delete(Contact).where(Contact.id == deleted.contact_id))
    assert set(session.scalars(select(ConversionAttribution.conversion_id))) == {kept.id}
    found = load_report_data(session, [page.campaign_id])
    assert found.counts[page.id].conversions == 1
    assert found.influenced[None] == 0


def test_rebuild_repairs_ledger_mismatches(session: Session, plan: tuple[Activity, Activity, Activity]) -> None:
    one, _two, page = plan
    conversion = add_conversion(session, page, (one, False))
    session.execute(delete(ConversionAttribution).where(ConversionAttribution.activity_id == one.id))
    for sums in (TotalAttribution, DailyAttribution):
        session.execute(update(sums).where(sums.activity_id == page.id).values(own=7))
    session.execute(update(Conversion).where(Conversion.id == conversion.id).values(value=Decimal(5)))
    wrong = [difference.key[0] for difference in counter_check.rebuild(session)]
    assert {"conversion_attributions", "total_attributions", "daily_attributions"} <= set(wrong)
    assert load_report_data(session, [page.campaign_id]).counts[page.id].revenue == Decimal(5)
