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
from tracking.conversions.attribution import Touchpoint, credit
from tracking.counters.periods import Window
from tracking.jobs import counter_check, lead_conversions
from tracking.metrics.counts import ActivityCounts
from tracking.metrics.queries import ReportQuery, facts
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
    assert attribution_ledger.compare(session.connection()) == []


def buy(
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
    credit(session, conversion, clicks)
    return conversion


def test_touches_count_once_for_activity_channel_and_campaign(
    session: Session, plan: tuple[Activity, Activity, Activity]
) -> None:
    one, two, page = plan
    buy(session, page, (one, False), (two, False), (one, False))
    buy(session, page, (two, False), (page, False), hours=1)
    buy(session, page, (two, True), hours=2)
    buy(session, page, hours=3)
    found = facts(session, [page.campaign_id])
    assert {id: counts.influenced for id, counts in found.counts.items()} == {one.id: 1, two.id: 2, page.id: 1}
    assert found.influenced == {Channel.EMAIL: 2, Channel.WEB: 1, None: 2}
    assert [found.counts[id].first_touch for id in (one.id, two.id, page.id)] == [1, 2, 1]
    assert [found.counts[id].last_touch for id in (one.id, two.id, page.id)] == [1, 1, 2]
    assert [found.counts[id].conversions for id in (one.id, two.id, page.id)] == [0, 0, 4]
    # A conversion after the window isn't counted, and two adjacent windows add up to the total.
    early = facts(session, [page.campaign_id], ReportQuery(Window(None, NOON + timedelta(hours=1)))).counts
    late = facts(session, [page.campaign_id], ReportQuery(Window(NOON + timedelta(hours=1), None))).counts
    assert early[page.id].conversions == 1
    assert {id: early[id] + late[id] for id in early} == {id: sum_of(found.counts[id]) for id in early}


def test_a_period_is_summed_from_days_and_its_ends(session: Session, plan: tuple[Activity, Activity, Activity]) -> None:
    one, _two, page = plan
    hours = (0, 11, 12, 13, 30, 36, 40, 59, 60, 61)
    for number, hour in enumerate(hours):
        buy(session, page, (one, False), hours=hour, amount=f"{number}.50" if number % 3 else "")
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
            counts = facts(session, [page.campaign_id], ReportQuery(Window(since, until))).counts
            assert counts[page.id].conversions == counts[one.id].influenced == len(inside), (since, until)
            assert counts[one.id].first_touch_revenue == (sum(worth) if worth else None)


def sum_of(counts: ActivityCounts) -> ActivityCounts:
    """The counts after an addition, which drops the values that can't be added."""
    return counts + ActivityCounts()


def test_a_click_that_settles_as_human_touches_from_then_on(
    session: Session, plan: tuple[Activity, Activity, Activity]
) -> None:
    one, _two, page = plan
    buy(session, page, (one, True))
    assert facts(session, [page.campaign_id]).influenced[None] == 0
    lead_conversions.recredit_due(session)  # A click missing from the event log counts as human.
    assert not session.scalar(select(ConversionTouchpoint.settling))
    assert facts(session, [page.campaign_id]).influenced == {Channel.EMAIL: 1, Channel.WEB: 0, None: 1}


def test_a_rate_that_comes_late_gives_earnings_their_value(
    session: Session, plan: tuple[Activity, Activity, Activity]
) -> None:
    one, two, page = plan
    buy(session, page, (one, False), (two, False), amount="12.34")
    assert facts(session, [page.campaign_id]).counts[page.id].revenue is None
    currency.set_rate(session, SYSTEM, currency="USD", valid_from=NOON.date() - timedelta(days=9), rate="0.5")
    found = facts(session, [page.campaign_id]).counts
    assert found[page.id].revenue == found[one.id].first_touch_revenue == Decimal("6.17")
    assert found[two.id].last_touch_revenue == Decimal("6.17")
    assert found[one.id].last_touch_revenue is found[one.id].revenue is None


def test_touches_follow_their_activity_into_another_channel(
    session: Session, plan: tuple[Activity, Activity, Activity]
) -> None:
    one, two, page = plan
    buy(session, page, (one, False), (two, False))
    assert facts(session, [page.campaign_id]).influenced == {Channel.EMAIL: 1, Channel.WEB: 0, None: 1}
    activities.update_activity(session, SYSTEM, two, channel=Channel.SOCIAL)
    told = facts(session, [page.campaign_id]).influenced
    assert told == {Channel.EMAIL: 1, Channel.SOCIAL: 1, Channel.WEB: 0, None: 1}
    activities.update_activity(session, SYSTEM, one, channel=Channel.SOCIAL)
    assert facts(session, [page.campaign_id]).influenced == {Channel.SOCIAL: 1, Channel.WEB: 0, None: 1}
    assert attribution_ledger.compare(session.connection()) == []


def test_whoever_goes_takes_their_earnings_along(session: Session, plan: tuple[Activity, Activity, Activity]) -> None:
    one, _two, page = plan
    gone, stays = buy(session, page, (one, False)), buy(session, page, hours=1)
    session.execute(delete(Contact).where(Contact.id == gone.contact_id))
    assert set(session.scalars(select(ConversionAttribution.conversion_id))) == {stays.id}
    found = facts(session, [page.campaign_id])
    assert found.counts[page.id].conversions == 1
    assert found.influenced[None] == 0


def test_what_is_wrong_is_found_and_mended(session: Session, plan: tuple[Activity, Activity, Activity]) -> None:
    one, _two, page = plan
    conversion = buy(session, page, (one, False))
    session.execute(delete(ConversionAttribution).where(ConversionAttribution.activity_id == one.id))
    for sums in (TotalAttribution, DailyAttribution):
        session.execute(update(sums).where(sums.activity_id == page.id).values(own=7))
    session.execute(update(Conversion).where(Conversion.id == conversion.id).values(value=Decimal(5)))
    wrong = [difference.key[0] for difference in counter_check.rebuild(session)]
    assert {"conversion_attributions", "total_attributions", "daily_attributions"} <= set(wrong)
    assert facts(session, [page.campaign_id]).counts[page.id].revenue == Decimal(5)
