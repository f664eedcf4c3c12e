"""The sessionizer: reports become visits, each counted once, whether late, repeated or out of order."""

from datetime import UTC, datetime, timedelta
from decimal import Decimal

import pytest
from sqlalchemy import Engine, select

from campaigns import clock, db
from campaigns.accounts.actor import SYSTEM
from campaigns.audience.models import ConsentLevel
from campaigns.content.rendering.links import own_hosts
from campaigns.planning.links import create_link
from campaigns.planning.models import Channel
from campaigns.tokens import Purpose, keyring
from tests.conftest import FrozenClock
from tests.factories import make_activity, make_campaign, make_form
from tests.tracking.fixtures import Mailing, events, make_mailing, set_tracking_consent
from tests.tracking.page_script_site import HOST, Tab, collect_visits, declare_own_hosts, post_report
from tracking.channels.channel_groups import ChannelGroup
from tracking.collector import collector, sessions
from tracking.endpoints import link_targets
from tracking.metrics.web_visits import VisitSummary, visit_counts
from tracking.models.conversions import CustomEvent
from tracking.models.events import DeadLetter, TrafficLabel
from tracking.models.visits import (
    AttributionEvidence,
    DaySalt,
    Device,
    SiteLastSeen,
    TrafficSource,
    VisitRollup,
    WebPage,
)


@pytest.fixture(autouse=True)
def site(database: Engine, frozen: FrozenClock) -> FrozenClock:
    declare_own_hosts()
    return frozen


def visit_token(mailing: Mailing, index: int = 0) -> str:
    expires = clock.now() + timedelta(minutes=30)
    return keyring().mint_expiring(Purpose.VISIT, mailing.sends[index].to_bytes(8), expires)


def test_a_visit_with_two_pages(site: FrozenClock) -> None:
    tab = Tab("/", referrer="https://www.google.com/", extra_fields={"l": "fr-FR", "z": "Asia/Tbilisi"}).report()
    site.at += timedelta(seconds=12)
    tab.report("h", active=11, scroll=40)
    tab.navigate("/tea?secret=1")
    (visit,) = collect_visits()
    assert (visit.pages, visit.active_seconds, visit.scroll, visit.engaged, visit.new) == (2, 11, 40, True, True)
    assert (visit.device, visit.browser, visit.country) == (Device.DESKTOP, "Firefox", "GE")
    assert (visit.label, visit.activity_id, visit.attributed_by) == (TrafficLabel.HUMAN, None, AttributionEvidence.NONE)
    with db.read_only_session() as session:
        came = session.get_one(TrafficSource, visit.traffic_source_id)
        assert (came.source, came.medium, came.referrer) == ("www.google.com", "organic", "www.google.com")
        assert ChannelGroup(came.channel_group) is ChannelGroup.ORGANIC_SEARCH
        assert session.get_one(WebPage, visit.entry_id).address == f"{HOST}/"
        assert session.get_one(WebPage, visit.exit_id).address == f"{HOST}/tea"
        assert session.scalars(select(SiteLastSeen.records)).one() == 3


def test_late_and_repeated_reports_give_the_same_visit(site: FrozenClock) -> None:
    tab, other = Tab("/?utm_source=x&utm_medium=email"), Tab("/b", referrer=f"https://{HOST}/")
    tab.report("h", active=20, scroll=80)  # Arrives before the page's first report.
    other.report(), tab.report(), tab.report("h", active=20, scroll=80), tab.report("h", active=9, scroll=20)
    (visit,) = collect_visits()
    assert (visit.pages, visit.active_seconds, visit.scroll) == (2, 20, 80)
    other.report("h", active=3)
    (visit,) = collect_visits()
    assert (visit.pages, visit.active_seconds) == (2, 23)


def test_half_an_hour_of_silence_ends_a_visit(site: FrozenClock) -> None:
    first = Tab().report()
    site.at += timedelta(minutes=29)
    second = first.navigate("/b")
    assert len(collect_visits()) == 1
    site.at += timedelta(minutes=31)
    second.navigate("/c")
    found = collect_visits()
    assert [visit.pages for visit in found] == [2, 1]
    assert [visit.new for visit in found] == [True, False]


def test_another_campaign_begins_another_visit(site: FrozenClock) -> None:
    tab = Tab("/?utm_source=facebook&utm_medium=social").report()
    other = Tab("/b?utm_source=partner&utm_medium=referral").report()
    site.at += timedelta(seconds=20)
    tab.report("h", active=15)  # Belongs to the visit of its own tab.
    site.at += timedelta(seconds=1)
    other.navigate("/c")
    site.at += timedelta(seconds=1)
    Tab("/d", referrer="https://pay.example/").report()  # A return from a payment provider begins no new visit.
    assert [(visit.pages, visit.active_seconds) for visit in collect_visits()] == [(1, 15), (3, 0)]


@pytest.mark.parametrize("day", [datetime(2026, 11, 22, tzinfo=UTC), datetime(2026, 3, 29, tzinfo=UTC)])
def test_a_visit_continues_over_midnight_and_clock_changes(site: FrozenClock, day: datetime) -> None:
    site.at = day + timedelta(hours=23, minutes=50)
    tab = Tab().report()
    site.at += timedelta(minutes=20)
    tab = tab.navigate("/b")
    site.at += timedelta(minutes=20)
    tab.navigate("/c")
    (visit,) = collect_visits()
    assert (visit.pages, visit.last_at - visit.started_at) == (3, timedelta(minutes=40))
    # Paris skips two o'clock in the night of 29 March.
    site.at = day + timedelta(hours=24, minutes=50)
    tab = Tab("/n", ip="198.51.100.1", extra_fields={"z": "Europe/Paris"}).report()
    site.at += timedelta(minutes=20)
    tab.navigate("/m")
    assert [visit.pages for visit in collect_visits()] == [3, 2]


def test_salts_are_deleted_and_visitors_are_not_recognised(site: FrozenClock) -> None:
    Tab().report()
    collect_visits()
    for _ in range(3):
        site.at += timedelta(days=1)
        Tab().report()
        found = collect_visits()
        with db.read_only_session() as session:
            assert all(site.at.date() - day <= timedelta(days=1) for day in session.scalars(select(DaySalt.day)))
    assert len({visit.visitor for visit in found}) == 4
    assert all(visit.new for visit in found)


def test_a_consented_id_is_recognised_until_withdrawn(site: FrozenClock) -> None:
    tab = Tab().report()
    tab.report("h", active=2, i="0f8fad5b-d9cb-469f-a165-70867728950e")  # kampania("consent", true)
    tab.navigate("/b", i="0f8fad5b-d9cb-469f-a165-70867728950e")
    (visit,) = collect_visits()
    assert visit.pages == 2
    site.at += timedelta(days=3)
    Tab(extra_fields={"i": "0f8fad5b-d9cb-469f-a165-70867728950e"}).report()
    site.at += timedelta(days=3)
    Tab().report()  # Consent withdrawn: the browser sends no id.
    found = collect_visits()
    assert [visit.visitor == found[0].visitor for visit in found] == [True, True, False]
    assert [visit.new for visit in found] == [True, False, True]


def test_an_id_does_not_take_over_a_neighbours_visit(site: FrozenClock) -> None:
    Tab("/mine").report()
    Tab("/theirs", extra_fields={"i": "abc"}).report()
    assert [visit.pages for visit in collect_visits()] == [1, 1]


def test_a_visit_from_a_mail_has_its_contact_and_confirms_the_click(site: FrozenClock) -> None:
    mailing = make_mailing(1)
    Tab("/before").report()
    site.at += timedelta(minutes=40)
    mailing.click()
    site.at += timedelta(seconds=1)
    tab = Tab("/", extra_fields={"k": visit_token(mailing)}).report()
    earlier, visit = collect_visits()
    assert (visit.send_id, visit.contact_id, visit.activity_id, visit.attributed_by) == (
        mailing.sends[0],
        mailing.contacts[0],
        mailing.activity_id,
        AttributionEvidence.SEND,
    )
    assert earlier.contact_id == mailing.contacts[0], "earlier visits are linked to the contact"
    assert events()[0].label == TrafficLabel.SETTLING
    site.at += timedelta(seconds=15)
    tab.report("h", active=12)
    assert collect_visits()[1].engaged
    assert events()[0].label == TrafficLabel.HUMAN
    with db.read_only_session() as session:
        assert visit_counts(session, [1]) == {mailing.activity_id: VisitSummary(1, 1, 1, 12, 1, 0, 1, 0)}


@pytest.mark.parametrize("level", [ConsentLevel.NONE, ConsentLevel.DELIVERABILITY])
def test_withdrawn_consent_stores_no_contact(site: FrozenClock, level: ConsentLevel) -> None:
    mailing = make_mailing(1)
    with db.transaction() as session:
        set_tracking_consent(session, mailing.contacts[0], level, clock.now())
    site.at += timedelta(seconds=1)
    Tab("/", extra_fields={"k": visit_token(mailing)}).report()
    (visit,) = collect_visits()
    assert (visit.send_id, visit.contact_id, visit.activity_id) == (None, None, mailing.activity_id)


def test_forged_and_expired_tokens_identify_no_contact(site: FrozenClock) -> None:
    mailing = make_mailing(1)
    token = visit_token(mailing)
    forged = [token[:-1] + ("A" if token[-1] != "A" else "B"), "x" * 5_000, mailing.token(), "", 7, None, {"a": 1}]
    for one in forged:
        Tab("/", extra_fields={"k": one}).report()
    site.at += timedelta(minutes=31)
    Tab("/", extra_fields={"k": token}).report()
    assert {(visit.send_id, visit.contact_id, visit.activity_id) for visit in collect_visits()} == {(None, None, None)}


@pytest.mark.parametrize("headers", [{"dnt": "1"}, {"sec_gpc": "1"}, {}])
def test_opt_out_leaves_only_rollups(site: FrozenClock, headers: dict[str, str]) -> None:
    mailing = make_mailing(1)
    more = {"k": visit_token(mailing), "i": "abc", **({} if headers else {"d": 1})}
    Tab("/", extra_fields=more, headers=headers).report().report("h", active=50).navigate("/b")
    assert collect_visits() == []
    with db.read_only_session() as session:
        (rollup,) = session.scalars(select(VisitRollup)).all()
        assert (rollup.visits, rollup.aggregate, rollup.pages, rollup.visitors, rollup.active_seconds) == (
            1,
            1,
            2,
            0,
            0,
        )
        assert session.scalars(select(DaySalt)).all() == []


def test_utm_and_short_links_find_their_activity(site: FrozenClock) -> None:
    with db.transaction() as session:
        campaign = make_campaign(session, name="Spring Tea 2026!")
        social = make_activity(session, campaign, channel=Channel.SOCIAL, url="https://www.instagram.com/p/1")
        second = make_activity(session, campaign, channel=Channel.SOCIAL, url="https://www.instagram.com/p/2")
        ads = make_activity(session, campaign, channel=Channel.ADS)
        link = create_link(session, SYSTEM, second, label="Story", url=f"https://{HOST}/tea")
        ids, query = (social.id, second.id, ads.id), link.utm
    for number, asked in enumerate(
        [
            query,
            "utm_source=instagram&utm_medium=social&utm_campaign=spring-tea-2026",
            "utm_id=1&utm_medium=CPC",
            "utm_campaign=Spring+Tea+2026",
            "utm_campaign=another&utm_source=x",
            "utm_id=99999999999999999999",
        ]
    ):
        Tab(f"/tea?{asked}", ip=f"198.51.{number}.1").report()
    found = collect_visits()
    assert [visit.activity_id for visit in found] == [ids[1], ids[0], ids[2], None, None, None]
    assert [visit.attributed_by for visit in found][:4] == [
        AttributionEvidence.UTM,
        AttributionEvidence.UTM,
        AttributionEvidence.UTM,
        AttributionEvidence.NONE,
    ]
    with db.read_only_session() as session:
        assert set(visit_counts(session, [1])) == set(ids)
        assert sum(counts.campaign_visitors for counts in visit_counts(session, [1]).values()) == 3
        later = visit_counts(session, [1], since=site.at + timedelta(hours=1))
    assert later == {}


def test_a_visitor_by_two_activities_counts_once_for_the_campaign(site: FrozenClock) -> None:
    with db.transaction() as session:
        campaign = make_campaign(session, name="Tea")
        for channel in (Channel.SOCIAL, Channel.ADS):
            make_activity(session, campaign, channel=channel)
    for medium in ("social", "cpc", "social"):
        Tab(f"/?utm_source={medium}&utm_medium={medium}&utm_campaign=tea").report()
        site.at += timedelta(minutes=31)
    assert len(collect_visits()) == 3
    with db.read_only_session() as session:
        counts = visit_counts(session, [1]).values()
    assert sum(one.visits for one in counts) == 3
    assert [one.visitors for one in counts] == [1, 1]
    assert sum(one.campaign_visitors for one in counts) == 1


def test_custom_events_are_stored_once(site: FrozenClock) -> None:
    tab = Tab("/thanks").report()
    tab.report("e", n="purchase", v=49.9, c="eur", e="A-1", x=1).report(
        "e", n="purchase", v=49.9, c="EUR", e="A-1", x=2
    )
    tab.report("e", n="signup", x=3).report("e", n="signup", x=3).report("e", n="signup", x=4)
    tab.report("o", h="https://elsewhere.example/", x=5)
    for value, currency in ((-1, "EUR"), (1e300, "EUR"), ("NaN", "EUR"), (5, "XXZ"), ([1], "EUR"), (True, "EUR")):
        tab.report("e", n="strange", v=value, c=currency, x=str(value) + currency)
    tab.report("e", n="bad\nname", x=9).report("e", n=None, x=10)
    (visit,) = collect_visits()
    with db.read_only_session() as session:
        found = session.scalars(select(CustomEvent).order_by(CustomEvent.id)).all()
        names = sorted(event.name for event in found)
        assert names == ["outbound", "purchase", "signup", "signup", *["strange"] * 6]
        assert {event.visit_id for event in found} == {visit.id}
        (bought,) = [event for event in found if event.name == "purchase"]
        assert (bought.amount, bought.currency) == (Decimal("49.90"), "EUR")
        assert all(
            e.amount is None and e.currency == "" and "refused" in e.detail for e in found if e.name == "strange"
        )


def test_invalid_reports_store_nothing_and_raise_nothing(site: FrozenClock) -> None:
    junk: list[object] = [
        b"",
        b"{",
        b"[]",
        b"null",
        b"\xff\xfe{}",
        b"{" * 4_000,
        {"t": "v"},
        {"t": "v", "p": 1, "u": "javascript:1"},
        {"t": "z", "p": 1, "u": f"https://{HOST}/"},
        {"t": "v", "p": "1", "u": f"https://{HOST}/"},
        {"t": "v", "p": 1 << 40, "u": f"https://{HOST}/"},
        {"t": "v", "p": True, "u": f"https://{HOST}/"},
        {"t": ["v"], "p": 1, "u": f"https://{HOST}/"},
        b'{"t":"v","p":' + b"9" * 5_000 + b"}",
    ]
    for body in junk:
        assert post_report(body).status == 204
    for address in ("https://other.example/", "http://[", f"https://{HOST}:99999/", "https://"):
        post_report({"t": "v", "p": 5, "u": address})
    assert collect_visits() == []
    strange: list[object] = [-5, 1e308, "9", None, [], {}, True, 10**30]
    for value in strange:
        Tab(
            "/\x00\ud800?utm_source=\x00",
            extra_fields={"r": value, "l": value, "z": value, "i": value, "f": value, "k": value, "d": 0, "b": 0},
        ).report("h", active=value, scroll=value)  # type: ignore[arg-type]
    assert sum(visit.pages for visit in collect_visits()) == len(strange)
    with db.read_only_session() as session:
        assert session.scalars(select(DeadLetter)).all() == []


def test_active_time_is_limited_by_elapsed_time(site: FrozenClock) -> None:
    tab = Tab().report()
    site.at += timedelta(seconds=30)
    tab.report("h", active=86_000, scroll=5_000)
    (visit,) = collect_visits()
    assert visit.active_seconds <= 90
    assert visit.scroll == 100


def test_page_views_of_a_visit_are_limited(site: FrozenClock, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sessions, "MAX_PAGE_VIEWS", 5)
    for _ in range(20):
        Tab().report("h", active=1)
    (visit,) = collect_visits()
    assert visit.pages == 5


def test_visits_of_programs_are_labelled_scanner(site: FrozenClock) -> None:
    mailing = make_mailing(1)
    Tab("/", extra_fields={"k": visit_token(mailing)}, user_agent="Mozilla/5.0 (X11) HeadlessChrome/140.0").report()
    Tab(
        "/", extra_fields={"k": visit_token(mailing)}, ip="40.107.1.1"
    ).report()  # a network of Exchange Online Protection
    assert [visit.label for visit in collect_visits()] == [TrafficLabel.SCANNER, TrafficLabel.SCANNER]
    with db.read_only_session() as session:
        assert visit_counts(session, [1]) == {}


def test_reports_are_counted_once_after_a_crash(site: FrozenClock, monkeypatch: pytest.MonkeyPatch) -> None:
    tab = Tab().report().report("e", n="signup", x=1)
    tab.navigate("/b")
    real = sessions._link_identified_visits

    def dies(*_: object) -> None:
        raise OSError("killed")

    monkeypatch.setattr(sessions, "_link_identified_visits", dies)
    with pytest.raises(OSError, match="killed"):
        collector.collect_once()
    monkeypatch.setattr(sessions, "_link_identified_visits", real)
    (visit,) = collect_visits()
    assert visit.pages == 2
    assert [again.pages for again in collect_visits()] == [2]
    with db.read_only_session() as session:
        assert len(session.scalars(select(CustomEvent)).all()) == 1


def test_hosted_landing_pages_count_for_their_activity(site: FrozenClock) -> None:
    with db.transaction() as session:
        activity = make_activity(session, make_campaign(session))
        make_form(session, activity, slug="box")
        activity_id = activity.id
    link_targets.sync()
    (host,) = own_hosts(())
    Tab("/f/box", host=host, referrer="https://www.instagram.com/").report()
    (visit,) = collect_visits()
    assert (visit.activity_id, visit.attributed_by) == (activity_id, AttributionEvidence.LANDING_PAGE)
