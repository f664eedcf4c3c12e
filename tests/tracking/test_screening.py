"""The rules, one by one, and their sum."""

import pytest

from tests.tracking.scene import BROWSER
from tracking.models import Kind, Label
from tracking.records import Flag
from tracking.screening import (
    Reason,
    facts,
    final_label,
    first_label,
    why,
)
from tracking.signals import Seen, Surroundings, signals

SECOND = 1_000_000
T = 1_700_000_000 * SECOND
GMAIL = "Mozilla/5.0 (Windows NT 5.1; rv:11.0) Gecko Firefox/11.0 (via ggpht.com GoogleImageProxy)"
GMAIL_PREFETCH = (
    "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/42.0.2311.135 "
    "Safari/537.36 Edge/12.246 Mozilla/5.0"
)


@pytest.mark.parametrize(("kind", "flags", "agent", "label"), [
    (Kind.OPEN, 0, BROWSER, Label.SETTLING),
    (Kind.OPEN, 0, GMAIL, Label.SETTLING),
    (Kind.OPEN, Flag.HEAD, BROWSER, Label.MACHINE),
    (Kind.OPEN, Flag.PREFETCH, BROWSER, Label.MACHINE),
    (Kind.OPEN, 0, "Mozilla/5.0", Label.MACHINE),
    (Kind.OPEN, 0, GMAIL_PREFETCH, Label.MACHINE),
    (Kind.OPEN, 0, "curl/8.1", Label.SCANNER),
    (Kind.OPEN, 0, "", Label.SCANNER),
    (Kind.CLICK, 0, "python-requests/2.31", Label.SCANNER),
    (Kind.CLICK, 0, "Mozilla/5.0", Label.SETTLING),
    (Kind.CLICK, Flag.NAVIGATED, BROWSER, Label.SETTLING),
    (Kind.CLICK, Flag.HEAD, "curl/8.1", Label.MACHINE),
    (Kind.VIEW, 0, BROWSER, Label.SETTLING),
])  # fmt: skip
def test_the_first_label(kind: Kind, flags: int, agent: str, label: Label) -> None:
    assert first_label(facts(kind, flags, agent.encode())) is label


def click(seconds: float, link: int = 1, agent: int = 1, reasons: int = 0) -> Seen:
    return Seen(T + int(seconds * SECOND), Kind.CLICK, link, reasons, agent)


def opened(seconds: float, reasons: int = 0) -> Seen:
    return Seen(T + int(seconds * SECOND), Kind.OPEN, 0, reasons, 1)


def view(seconds: float) -> Seen:
    return Seen(T + int(seconds * SECOND), Kind.VIEW, 0, 0, 1)


def judge(
    event: Seen, *others: Seen, links: int = 10, sent: bool = True, submitted: float | None = None, scale: float = 1.0
) -> tuple[Label, Reason]:
    """The final label of an event of a mail that the relay took at second 0."""
    at = [] if submitted is None else [T + int(submitted * SECOND)]
    found = signals(event, Surroundings(T if sent else None, links, [event, *others], at, scale), False)
    return final_label(found), Reason(found)


def test_an_open_is_human_unless_it_comes_at_once() -> None:
    assert judge(opened(30))[0] is Label.HUMAN
    assert judge(opened(9, Reason.IMAGE_PROXY))[0] is Label.UNKNOWN
    assert judge(opened(11, Reason.IMAGE_PROXY))[0] is Label.HUMAN
    assert judge(opened(3), sent=False)[0] is Label.HUMAN
    assert judge(opened(1), *(click(n, n) for n in range(1, 6)))[0] is Label.SCANNER


def test_a_gateway_that_follows_everything_is_a_scanner() -> None:
    clicks = [click(3_600 + n / 5, n) for n in range(1, 11)]
    assert {judge(each, *clicks)[0] for each in clicks} == {Label.SCANNER}


@pytest.mark.parametrize(("links", "followed", "label"), [
    (1, 1, Label.HUMAN), (2, 2, Label.SCANNER), (3, 2, Label.SCANNER), (4, 2, Label.HUMAN), (10, 2, Label.HUMAN),
    (10, 3, Label.UNKNOWN), (10, 5, Label.SCANNER), (0, 2, Label.HUMAN), (0, 5, Label.SCANNER),
])  # fmt: skip
def test_what_makes_a_burst(links: int, followed: int, label: Label) -> None:
    clicks = [click(300 + n, n, reasons=Reason.NAVIGATED * (label is Label.HUMAN)) for n in range(1, followed + 1)]
    assert judge(clicks[0], *clicks[1:], links=links)[0] is label


def test_clicks_apart_are_no_burst_and_one_alone_later_is_human() -> None:
    clicks = [click(700 + 60 * n, n) for n in range(1, 6)]
    assert judge(clicks[2], *clicks[:2], *clicks[3:])[0] is Label.HUMAN
    assert judge(click(300))[0] is Label.UNKNOWN
    assert judge(click(300), opened(290))[0] is Label.HUMAN
    assert judge(click(3, reasons=Reason.NAVIGATED))[0] is Label.UNKNOWN


def test_the_same_link_by_another_program_is_suspicious() -> None:
    found = judge(click(305, agent=2), click(300, agent=1))[1]
    assert Reason.DISGUISE in found
    assert Reason.DISGUISE not in judge(click(300, agent=1), click(305, agent=2))[1]


def test_a_landing_page_shown_speaks_for_the_last_click_before_it() -> None:
    early, late = click(2), click(60, 2)
    assert judge(late, early, view(61))[0] is Label.HUMAN
    assert Reason.VIEWED not in judge(early, late, view(61))[1]


def test_a_form_sent_decides() -> None:
    burst = [click(3 + n / 10, n) for n in range(1, 6)]
    human = click(400, 2)
    assert judge(human, *burst, submitted=500)[0] is Label.HUMAN
    assert judge(burst[0], *burst[1:], human, submitted=500)[0] is Label.SCANNER
    assert judge(click(5, reasons=Reason.HEAD), submitted=10)[0] is Label.MACHINE


def test_every_threshold_shrinks_with_time() -> None:
    assert judge(click(11), scale=60)[0] is Label.HUMAN
    assert judge(opened(0.1), scale=60)[0] is Label.UNKNOWN
    assert judge(opened(0.2), scale=60)[0] is Label.HUMAN
    apart = [click(20 + n, n) for n in range(1, 6)]
    assert judge(apart[0], *apart[1:], scale=60)[0] is Label.HUMAN


def test_every_reason_has_words() -> None:
    assert len({reason.words for reason in Reason}) == len(Reason)
    spoken = why(Reason.BURST | Reason.NAVIGATED)
    assert [said.weight for said in spoken] == [4, -2]
