"""Deferred signals: what the other events of a send, its delivery time and its network show after the settle window."""

from bisect import bisect_left, bisect_right
from collections import Counter, defaultdict, deque
from collections.abc import Callable, Collection, Iterable, Sequence, Set
from math import ceil
from operator import attrgetter
from typing import NamedTuple

from tracking.bots.gateways import gateway_of
from tracking.bots.rules import (
    ALL_LINKS,
    ALL_SHARE,
    BURST_LINKS,
    BURST_SECONDS,
    BURST_SHARE,
    CROWD_RECIPIENTS,
    EARLY_SECONDS,
    IMMEDIATE_SIGNALS,
    LATE_SECONDS,
    READING_SECONDS,
    SEVERAL_LINKS,
    SOON_SECONDS,
    LabelReason,
    is_non_human,
)
from tracking.models.events import HitKind

# Plain integers: arithmetic on IntFlag members runs Python code for every event (tests/benchmarks/collector.py).
_IMMEDIATE = int(IMMEDIATE_SIGNALS)
_BURST, _EVERYTHING, _SMALL_PRINT = int(LabelReason.BURST), int(LabelReason.EVERYTHING), int(LabelReason.SMALL_PRINT)
_SEVERAL, _UNREAD = int(LabelReason.SEVERAL), int(LabelReason.UNREAD)
_SOON, _EARLY, _ALONE, _LATE_ALONE = (
    int(LabelReason.SOON),
    int(LabelReason.EARLY),
    int(LabelReason.ALONE),
    int(LabelReason.LATE_ALONE),
)
_CROWD, _GATEWAY, _DISGUISE, _CHECKED = (
    int(LabelReason.CROWD),
    int(LabelReason.GATEWAY),
    int(LabelReason.DISGUISE),
    int(LabelReason.CHECKED),
)
_READ_BEFORE, _VIEWED, _SUBMITTED, _SHOWN = (
    int(LabelReason.READ_BEFORE),
    int(LabelReason.VIEWED),
    int(LabelReason.SUBMITTED),
    int(LabelReason.SHOWN),
)
_STAYED = int(LabelReason.STAYED)
_OPEN, _CLICK, _VIEW = int(HitKind.OPEN), int(HitKind.CLICK), int(HitKind.VIEW)
_CONFIRMED_KINDS = (_CLICK, _VIEW)
"""Kinds of events that a submitted form proves to be a person's."""


class HitSignal(NamedTuple):
    """The fields of an event that signals depend on; ``at`` in microseconds."""

    at: int
    kind: int
    link: int
    reasons: int
    user_agent: int
    network: int = 0


class SendContext:
    """Context of a send when its events are labelled.

    Comparisons between events are computed once per send, because one link may have been followed ten thousand times.
    """

    def __init__(
        self,
        sent_at: int | None,
        links: int,
        events: Sequence[HitSignal],
        submitted_at: Sequence[int],
        scale: float = 1.0,
        small_print: Collection[int] = (),
        engaged_at: Sequence[int] = (),
    ) -> None:
        """``links``: number of tracked links in the mail, 0 when unknown. ``small_print``: numbers of its legal links.
        ``engaged_at``: starts of engaged visits. Every threshold is divided by ``scale`` (``TIME_SCALE``).
        """
        self.sent_at, self._scale = sent_at, scale
        opens, views, clicks = list[int](), list[int](), list[HitSignal]()
        for event in events:
            kind = event[1]
            if kind == _CLICK:
                clicks.append(event)
            elif not is_non_human(event[3]):
                (opens if kind == _OPEN else views).append(event[0])
        opens.sort()
        self.opens = opens
        self.viewed_clicks = last_events_before(views, clicks, _CLICK)
        self.submitted_hits = (
            {kind: last_events_before(submitted_at, events, kind) for kind in _CONFIRMED_KINDS} if submitted_at else {}
        )
        self.engaged_clicks = last_events_before(engaged_at, clicks, _CLICK)
        self.bursts: list[_Burst] = []
        self.burst_small_print = False
        self.disguised_clicks: _ClickSet = _NO_CLICKS
        self.checked_clicks: _ClickSet = _NO_CLICKS
        self.accompanied_clicks: Collection[tuple[int, int]] = ()
        self.link_sweeps: _LinkSweeps | None = None
        if len(clicks) > 1:
            self._compare_clicks(sorted(clicks), links, small_print)

    def _compare_clicks(self, clicks: Sequence[HitSignal], links: int, small_print: Collection[int]) -> None:
        span = self.scaled_micros(BURST_SECONDS)
        self.bursts = _find_bursts(clicks, links, span)
        self.disguised_clicks, self.checked_clicks = _repeated_clicks(clicks, span)
        self.accompanied_clicks = _accompanied_clicks(clicks, span)
        self.link_sweeps = _LinkSweeps.find(clicks, links, small_print)
        self.burst_small_print = bool(small_print) and any(
            c.link in small_print and self.bursts_near(c.at, 0) for c in clicks
        )

    def scaled_micros(self, seconds: float) -> float:
        """A threshold in scaled microseconds."""
        return seconds * 1_000_000 / self._scale

    def bursts_near(self, at: int, margin: float) -> "list[_Burst]":
        """The bursts within ``margin`` of an instant. A send may have thousands of bursts elsewhere."""
        first = last = bisect_left(self.bursts, at - margin, key=_BURST_END)
        while last < len(self.bursts) and self.bursts[last].start <= at + margin:
            last += 1
        return self.bursts[first:last]


class _LinkSweeps(NamedTuple):
    """User agents and networks that followed nearly every link, each with whether small print was among the links."""

    programs: dict[int, bool]
    networks: dict[int, bool]

    @classmethod
    def find(cls, clicks: Sequence[HitSignal], links: int, small_print: Collection[int]) -> "_LinkSweeps | None":
        if links < ALL_LINKS or len({c.link for c in clicks}) < links * ALL_SHARE:
            return None

        def followers(name: Callable[[HitSignal], int]) -> dict[int, bool]:
            by_name = defaultdict[int, set[int]](set)
            for click in clicks:
                by_name[name(click)].add(click.link)
            return {
                one: not followed.isdisjoint(small_print)
                for one, followed in by_name.items()
                if len(followed) >= links * ALL_SHARE
            }

        networks = followers(lambda click: click.network)
        networks.pop(0, None)
        return cls(followers(lambda click: click.user_agent), networks)

    def reasons(self, click: HitSignal) -> int:
        found = 0
        for kept, name in ((self.programs, click.user_agent), (self.networks, click.network)):
            if name in kept:
                found |= _EVERYTHING | (_SMALL_PRINT if kept[name] else 0)
        return found


class _Burst(NamedTuple):
    """A time range with clicks on too many links within ten seconds. Instants in microseconds."""

    start: int
    end: int
    reason: int
    """BURST when it covers most links of the mail, else SEVERAL."""


_BURST_END = attrgetter("end")  # Bursts do not overlap and are ordered, so their ends are ordered, too.


def _find_bursts(clicks: Sequence[HitSignal], links: int, span: float) -> list[_Burst]:
    """The bursts among clicks. A burst needs at least two links: in a mail with one link, every click would follow "all
    links".
    """
    burst_links = min(BURST_LINKS, max(2, ceil(links * BURST_SHARE))) if links else BURST_LINKS
    found: list[_Burst] = []
    window: deque[HitSignal] = deque()
    within: Counter[int] = Counter()
    for click in clicks:
        window.append(click)
        within[click.link] += 1
        while window[0].at < click.at - span:
            gone = window.popleft()
            within[gone.link] -= 1
            if not within[gone.link]:
                del within[gone.link]
        if len(within) >= min(SEVERAL_LINKS, burst_links):
            start, reason = window[0].at, _BURST if len(within) >= burst_links else _SEVERAL
            if found and start <= found[-1].end:
                before = found.pop()
                start, reason = before.start, _BURST if _BURST in (reason, before.reason) else _SEVERAL
            found.append(_Burst(start, click.at, reason))
    return found


_ClickSet = Set[tuple[int, int, int]]
_NO_CLICKS: _ClickSet = frozenset()


def _repeated_clicks(clicks: Sequence[HitSignal], span: float) -> tuple[_ClickSet, _ClickSet]:
    """Two sets of clicks (instant, link, user agent): those on a link that another user agent followed seconds before,
    and those on a link that another user agent from another network followed seconds after.
    """
    disguised, checked = set[tuple[int, int, int]](), set[tuple[int, int, int]]()
    latest: dict[int, list[HitSignal]] = {}  # By link, the last click of each of two user agents.
    for click in clicks:
        seen = latest.setdefault(click.link, [])
        for earlier in seen:
            if earlier.user_agent != click.user_agent and click.at - earlier.at <= span:
                disguised.add((click.at, click.link, click.user_agent))
                if 0 != earlier.network != click.network != 0:
                    checked.add((earlier.at, earlier.link, earlier.user_agent))
        others = [earlier for earlier in seen if earlier.user_agent != click.user_agent]
        seen[:] = [*others[-1:], click]
    return disguised, checked


def _accompanied_clicks(clicks: Sequence[HitSignal], span: float) -> set[tuple[int, int]]:
    """Clicks (instant, link) with a click on another link within ten seconds before or after."""
    found = set()
    for ordered in (clicks, clicks[::-1]):
        other: HitSignal | None = None  # The nearest click on another link than the last one's.
        last: HitSignal | None = None
        for click in ordered:
            if last is not None and last.link != click.link:
                other = last
            if other is not None and other.link != click.link and abs(click.at - other.at) <= span:
                found.add((click.at, click.link))
            last = click
    return found


def last_events_before(instants: Sequence[int], events: Sequence[HitSignal], kind: int) -> Set[int]:
    """For each instant, the last event of a kind before it that may be a person's. Returns the events' instants."""
    if not instants:
        return _NO_INSTANTS
    candidates = sorted(e.at for e in events if e.kind == kind and not is_non_human(e.reasons))
    places = (bisect_right(candidates, instant) for instant in instants)
    return {candidates[place - 1] for place in places if place}


_NO_INSTANTS: Set[int] = frozenset()


def deferred_signals(event: HitSignal, context: SendContext, in_crowd: bool) -> int:
    """Bits of :class:`LabelReason`: the stored immediate signals and those of the send's context, time and network."""
    is_click = event.kind == _CLICK
    reasons = (event.reasons & _IMMEDIATE) | _timing_signal(event, context)
    margin = 0.0 if is_click else context.scaled_micros(BURST_SECONDS)
    if context.bursts:
        for burst in context.bursts_near(event.at, margin):
            reasons |= burst.reason | (_SMALL_PRINT if context.burst_small_print else 0)
    if event.network and gateway_of(event.network):
        reasons |= _GATEWAY
    if is_click:
        reasons |= _click_signals(event, context)
        if in_crowd:
            reasons |= _CROWD
    else:
        reasons |= _SHOWN
    if context.submitted_hits and event.at in context.submitted_hits.get(event.kind, ()):
        reasons |= _SUBMITTED
    if is_click and event.at in context.engaged_clicks:
        reasons |= _STAYED
    return reasons


def _timing_signal(event: HitSignal, context: SendContext) -> int:
    if context.sent_at is None:
        return 0
    after = event.at - context.sent_at
    if after < context.scaled_micros(SOON_SECONDS):
        return _SOON
    if event.kind != _CLICK:
        return 0
    if after < context.scaled_micros(EARLY_SECONDS):
        return _EARLY
    if (event.at, event.link) in context.accompanied_clicks:
        return 0
    return _LATE_ALONE if after > context.scaled_micros(LATE_SECONDS) else _ALONE


def _click_signals(event: HitSignal, context: SendContext) -> int:
    reasons = context.link_sweeps.reasons(event) if context.link_sweeps else 0
    if context.disguised_clicks and (event.at, event.link, event.user_agent) in context.disguised_clicks:
        reasons |= _DISGUISE
    if context.checked_clicks and (event.at, event.link, event.user_agent) in context.checked_clicks:
        reasons |= _CHECKED
    if context.opens:
        reasons |= _reading_signal(event.at, context)
    if event.at in context.viewed_clicks:
        reasons |= _VIEWED
    return reasons


def find_crowds(clicks: Iterable[tuple[int, int, int]], span: int) -> dict[int, set[int]]:
    """By network, the instants at which it followed links of many recipients within ``span`` microseconds.

    ``clicks`` are ordered tuples (network, instant, send).
    """
    found: dict[int, set[int]] = defaultdict(set)
    window: deque[tuple[int, int]] = deque()
    within: Counter[int] = Counter()
    current = None
    for network, at, send_id in clicks:
        if network != current:
            current = network
            window.clear()
            within.clear()
        window.append((at, send_id))
        within[send_id] += 1
        while window[0][0] < at - span:
            gone = window.popleft()[1]
            within[gone] -= 1
            if not within[gone]:
                del within[gone]
        if len(within) >= CROWD_RECIPIENTS:
            found[network].update(instant for instant, _ in window)
    return found


def _reading_signal(at: int, context: SendContext) -> int:
    """READ_BEFORE when the mail was shown long enough to be read before the click, UNREAD when only just."""
    reading = context.scaled_micros(READING_SECONDS)
    if at - context.opens[0] >= reading:
        return _READ_BEFORE
    return _UNREAD if at >= context.opens[0] else 0
