"""Bot detection rules: each signal, and the score."""

import pytest

from tests.tracking.fixtures import BROWSER
from tracking.bots.gateways import gateway_of
from tracking.bots.rules import LabelReason, final_label, first_label, immediate_signals, is_small_print, reason_details
from tracking.bots.signals import HitSignal, SendContext, deferred_signals, find_crowds
from tracking.models.events import HitKind, TrafficLabel
from tracking.spool.record_codec import RequestFlag

SECOND = 1_000_000
T = 1_700_000_000 * SECOND
GMAIL = "Mozilla/5.0 (Windows NT 5.1; rv:11.0) Gecko Firefox/11.0 (via ggpht.com GoogleImageProxy)"
GMAIL_PREFETCH = (
    "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/42.0.2311.135 "
    "Safari/537.36 Edge/12.246 Mozilla/5.0"
)


@pytest.mark.parametrize(
    ("kind", "flags", "agent", "label"),
    [
        (HitKind.OPEN, 0, BROWSER, TrafficLabel.SETTLING),
        (HitKind.OPEN, 0, GMAIL, TrafficLabel.SETTLING),
        (HitKind.OPEN, RequestFlag.HEAD, BROWSER, TrafficLabel.MACHINE),
        (HitKind.OPEN, RequestFlag.PREFETCH, BROWSER, TrafficLabel.MACHINE),
        (HitKind.OPEN, 0, "Mozilla/5.0", TrafficLabel.MACHINE),
        (HitKind.OPEN, 0, GMAIL_PREFETCH, TrafficLabel.MACHINE),
        (HitKind.OPEN, 0, "curl/8.1", TrafficLabel.SCANNER),
        (HitKind.OPEN, 0, "", TrafficLabel.SCANNER),
        (HitKind.CLICK, 0, "python-requests/2.31", TrafficLabel.SCANNER),
        (HitKind.CLICK, 0, "Mozilla/5.0", TrafficLabel.SETTLING),
        (HitKind.CLICK, RequestFlag.NAVIGATED, BROWSER, TrafficLabel.SETTLING),
        (HitKind.CLICK, RequestFlag.HEAD, "curl/8.1", TrafficLabel.MACHINE),
        (HitKind.VIEW, 0, BROWSER, TrafficLabel.SETTLING),
    ],
)
def test_the_first_label(kind: HitKind, flags: int, agent: str, label: TrafficLabel) -> None:
    assert first_label(immediate_signals(kind, flags, agent.encode())) is label


def click(seconds: float, link: int = 1, agent: int = 1, reasons: int = 0) -> HitSignal:
    return HitSignal(T + int(seconds * SECOND), HitKind.CLICK, link, reasons, agent)


def opened(seconds: float, reasons: int = 0) -> HitSignal:
    return HitSignal(T + int(seconds * SECOND), HitKind.OPEN, 0, reasons, 1)


def view(seconds: float) -> HitSignal:
    return HitSignal(T + int(seconds * SECOND), HitKind.VIEW, 0, 0, 1)


def label_event(
    event: HitSignal,
    *others: HitSignal,
    links: int = 10,
    sent: bool = True,
    submitted: float | None = None,
    scale: float = 1.0,
) -> tuple[TrafficLabel, LabelReason]:
    """The final label of an event and its reasons. The relay accepted the mail at second 0."""
    at = [] if submitted is None else [T + int(submitted * SECOND)]
    found = deferred_signals(event, SendContext(T if sent else None, links, [event, *others], at, scale), False)
    return final_label(found), LabelReason(found)


def test_an_open_is_human_unless_right_after_delivery() -> None:
    assert label_event(opened(30))[0] is TrafficLabel.HUMAN
    assert label_event(opened(9, LabelReason.IMAGE_PROXY))[0] is TrafficLabel.UNKNOWN
    assert label_event(opened(11, LabelReason.IMAGE_PROXY))[0] is TrafficLabel.HUMAN
    assert label_event(opened(3), sent=False)[0] is TrafficLabel.HUMAN
    assert label_event(opened(1), *(click(n, n) for n in range(1, 6)))[0] is TrafficLabel.SCANNER


def test_a_gateway_that_follows_everything_is_a_scanner() -> None:
    clicks = [click(3_600 + n / 5, n) for n in range(1, 11)]
    assert {label_event(each, *clicks)[0] for each in clicks} == {TrafficLabel.SCANNER}


@pytest.mark.parametrize(
    ("links", "followed", "label"),
    [
        (1, 1, TrafficLabel.HUMAN),
        (2, 2, TrafficLabel.SCANNER),
        (3, 2, TrafficLabel.SCANNER),
        (4, 2, TrafficLabel.HUMAN),
        (10, 2, TrafficLabel.HUMAN),
        (10, 3, TrafficLabel.UNKNOWN),
        (10, 5, TrafficLabel.SCANNER),
        (0, 2, TrafficLabel.HUMAN),
        (0, 5, TrafficLabel.SCANNER),
    ],
)
def test_burst_thresholds(links: int, followed: int, label: TrafficLabel) -> None:
    clicks = [
        click(300 + n, n, reasons=LabelReason.NAVIGATED * (label is TrafficLabel.HUMAN)) for n in range(1, followed + 1)
    ]
    assert label_event(clicks[0], *clicks[1:], links=links)[0] is label


def test_clicks_apart_are_no_burst_and_a_late_single_click_is_human() -> None:
    clicks = [click(700 + 60 * n, n) for n in range(1, 6)]
    assert label_event(clicks[2], *clicks[:2], *clicks[3:])[0] is TrafficLabel.HUMAN
    assert label_event(click(300))[0] is TrafficLabel.UNKNOWN
    assert label_event(click(300), opened(290))[0] is TrafficLabel.HUMAN
    assert label_event(click(3, reasons=LabelReason.NAVIGATED))[0] is TrafficLabel.UNKNOWN


def test_the_same_link_by_another_user_agent_is_a_disguise() -> None:
    found = label_event(click(305, agent=2), click(300, agent=1))[1]
    assert LabelReason.DISGUISE in found
    assert LabelReason.DISGUISE not in label_event(click(300, agent=1), click(305, agent=2))[1]


def test_a_landing_page_view_counts_for_the_last_click_before_it() -> None:
    early, late = click(2), click(60, 2)
    assert label_event(late, early, view(61))[0] is TrafficLabel.HUMAN
    assert LabelReason.VIEWED not in label_event(early, late, view(61))[1]


def test_a_submitted_form_decides() -> None:
    burst = [click(3 + n / 10, n) for n in range(1, 6)]
    human = click(400, 2)
    assert label_event(human, *burst, submitted=500)[0] is TrafficLabel.HUMAN
    assert label_event(burst[0], *burst[1:], human, submitted=500)[0] is TrafficLabel.SCANNER
    assert label_event(click(5, reasons=LabelReason.HEAD), submitted=10)[0] is TrafficLabel.MACHINE


def test_thresholds_scale_with_time_scale() -> None:
    assert label_event(click(11), scale=60)[0] is TrafficLabel.HUMAN
    assert label_event(opened(0.1), scale=60)[0] is TrafficLabel.UNKNOWN
    assert label_event(opened(0.2), scale=60)[0] is TrafficLabel.HUMAN
    apart = [click(20 + n, n) for n in range(1, 6)]
    assert label_event(apart[0], *apart[1:], scale=60)[0] is TrafficLabel.HUMAN


def test_every_reason_has_a_description() -> None:
    assert len({reason.description for reason in LabelReason}) == len(LabelReason)
    details = reason_details(LabelReason.BURST | LabelReason.NAVIGATED)
    assert [detail.weight for detail in details] == [4, -2]


def test_a_gateway_network_is_a_signal() -> None:
    inside = opened(300)._replace(network=(104 << 16) | (47 << 8) | 9)
    assert label_event(inside) == (TrafficLabel.UNKNOWN, LabelReason.SHOWN | LabelReason.GATEWAY)
    assert LabelReason.GATEWAY not in label_event(inside._replace(network=(104 << 16) | (48 << 8)))[1]
    assert [gateway_of(n) for n in (0, (40 << 16) | (92 << 8), (40 << 16) | (96 << 8), 1 << 48)] == [
        "",
        "Exchange Online Protection",
        "",
        "",
    ]


def test_following_all_links_slowly_is_a_signal() -> None:
    slow = [click(700 + 60 * n, n, agent=9) for n in range(1, 7)]
    person = click(2_000, 2, agent=1)
    assert LabelReason.EVERYTHING in label_event(slow[0], *slow[1:], person, links=6)[1]
    assert LabelReason.EVERYTHING not in label_event(person, *slow, links=6)[1]
    assert LabelReason.EVERYTHING not in label_event(slow[0], *slow[1:], links=9)[1]


def test_small_print_counts_beside_a_burst() -> None:
    quick = [click(300 + n, n) for n in range(1, 6)]
    around = SendContext(T, 6, quick, [], 1.0, {5})
    assert LabelReason.SMALL_PRINT in LabelReason(deferred_signals(quick[0], around, False))
    assert LabelReason.SMALL_PRINT not in LabelReason(
        deferred_signals(quick[4], SendContext(T, 6, quick[4:], [], 1.0, {5}), False)
    )


@pytest.mark.parametrize(
    ("url", "label", "small"),
    [
        ("https://example.org/privacy", "More", True),
        ("https://example.org/a", "Se désabonner", True),
        ("https://example.org/a", "لغو اشتراک", True),
        ("https://example.org/offers", "See the offers", False),
        ("https://example.org/preferences-of-our-cooks", "Our cooks", False),
    ],
)
def test_small_print_pattern(url: str, label: str, small: bool) -> None:
    assert is_small_print(url, label) is small


def test_a_check_before_a_click_is_distinguished_from_the_person() -> None:
    check = click(700, agent=8)._replace(network=5)
    person = click(702, agent=1, reasons=LabelReason.NAVIGATED)._replace(network=6)
    assert label_event(check, person, opened(600))[0] is TrafficLabel.UNKNOWN
    assert label_event(person, check, opened(600))[0] is TrafficLabel.HUMAN


def test_a_click_right_after_the_open_is_unread() -> None:
    assert LabelReason.UNREAD in label_event(click(301), opened(300))[1]
    assert LabelReason.UNREAD not in label_event(click(301), opened(300), opened(100))[1]
    assert LabelReason.UNREAD not in label_event(click(299), opened(300))[1]


def test_declared_robots_are_scanners() -> None:
    for agent in (
        b"Slackbot 1.0 (+https://api.slack.com/robots)",
        b"TelegramBot (like TwitterBot)",
        b"WhatsApp/2.24 A",
    ):
        assert first_label(immediate_signals(HitKind.CLICK, 0, agent)) is TrafficLabel.SCANNER
    telephone = b"Mozilla/5.0 (Linux; Android 10; CUBOT P40) AppleWebKit/537.36 Chrome/143.0 Mobile Safari/537.36"
    assert first_label(immediate_signals(HitKind.CLICK, 0, telephone)) is TrafficLabel.SETTLING


def test_crowds_count_recipients_not_clicks() -> None:
    minute = 60 * SECOND
    assert find_crowds([(7, n * SECOND, 1) for n in range(9)], minute) == {}
    assert find_crowds([(7, n * SECOND, n) for n in range(5)], minute) == {7: {n * SECOND for n in range(5)}}
    assert find_crowds([(7, n * 16 * SECOND, n) for n in range(9)], minute) == {}
    assert find_crowds([(n, n * SECOND, n) for n in range(9)], minute) == {}
