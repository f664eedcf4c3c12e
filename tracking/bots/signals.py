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
    CROWD,
    EARLY_SECONDS,
    FACTS,
    LATE_SECONDS,
    READING_SECONDS,
    SEVERAL_LINKS,
    SOON_SECONDS,
    LabelReason,
    is_no_person,
)
from tracking.models.events import HitKind

# Plain integers: arithmetic on IntFlag members runs Python code for every event (tests/benchmarks/collector.py).
_FACTS = int(FACTS)
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
_LED = (_CLICK, _VIEW)
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
        stayed_at: Sequence[int] = (),
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
            elif not is_no_person(event[3]):
                (opens if kind == _OPEN else views).append(event[0])
        opens.sort()
        self.opens = opens
        self.viewed = last_before(views, clicks, _CLICK)
        self.submitted = {kind: last_before(submitted_at, events, kind) for kind in _LED} if submitted_at else {}
        self.stayed = last_before(stayed_at, clicks, _CLICK)
        self.bursts: list[_Burst] = []
        self.burst_small_print = False
        self.disguised: _Pair = _NO_PAIR
        self.checked: _Pair = _NO_PAIR
        self.in_company: Collection[tuple[int, int]] = ()
        self.everything: _LinkSweeps | None = None
        if len(clicks) > 1:
            self._compare(sorted(clicks), links, small_print)

    def _compare(self, clicks: Sequence[HitSignal], links: int, small_print: Collection[int]) -> None:
        span = self.span(BURST_SECONDS)
        self.bursts = _bursts(clicks, links, span)
        self.disguised, self.checked = _pairs(clicks, span)
        self.in_company = _in_company(clicks, span)
        self.everything = _LinkSweeps.of(clicks, links, small_print)
        self.burst_small_print = bool(small_print) and any(
            c.link in small_print and self.bursts_about(c.at, 0) for c in clicks
        )

    def span(self, seconds: float) -> float:
        """A threshold in scaled microseconds."""
        return seconds * 1_000_000 / self._scale

    def bursts_about(self, at: int, margin: float) -> "list[_Burst]":
        """The bursts within ``margin`` of an instant. A send may have thousands of bursts elsewhere."""
        first = last = bisect_left(self.bursts, at - margin, key=_END)
        while last < len(self.bursts) and self.bursts[last].start <= at + margin:
            last += 1
        return self.bursts[first:last]


class _LinkSweeps(NamedTuple):
    """User agents and networks that followed nearly every link, each with whether small print was among the links."""

    programs: dict[int, bool]
    networks: dict[int, bool]

    @classmethod
    def of(cls, clicks: Sequence[HitSignal], links: int, small_print: Collection[int]) -> "_LinkSweeps | None":
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


_END = attrgetter("end")  # Bursts do not overlap and are ordered, so their ends are ordered, too.


def _bursts(clicks: Sequence[HitSignal], links: int, span: float) -> list[_Burst]:
    """The bursts among clicks. A burst needs at least two links: in a mail with one link, every click would follow "all
    links".
    """
    most = min(BURST_LINKS, max(2, ceil(links * BURST_SHARE))) if links else BURST_LINKS
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
        if len(within) >= min(SEVERAL_LINKS, most):
            start, reason = window[0].at, _BURST if len(within) >= most else _SEVERAL
            if found and start <= found[-1].end:
                before = found.pop()
                start, reason = before.start, _BURST if _BURST in (reason, before.reason) else _SEVERAL
            found.append(_Burst(start, click.at, reason))
    return found


_Pair = Set[tuple[int, int, int]]
_NO_PAIR: _Pair = frozenset()


def _pairs(clicks: Sequence[HitSignal], span: float) -> tuple[_Pair, _Pair]:
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


def _in_company(clicks: Sequence[HitSignal], span: float) -> set[tuple[int, int]]:
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


def last_before(instants: Sequence[int], events: Sequence[HitSignal], kind: int) -> Set[int]:
    """For each instant, the last event of a kind before it that may be a person's. Returns the events' instants."""
    if not instants:
        return _NEVER
    may_be = sorted(e.at for e in events if e.kind == kind and not is_no_person(e.reasons))
    places = (bisect_right(may_be, instant) for instant in instants)
    return {may_be[place - 1] for place in places if place}


_NEVER: Set[int] = frozenset()


def signals(event: HitSignal, around: SendContext, crowded: bool) -> int:
    """Bits of :class:`LabelReason`: the stored immediate signals and those of the send's context, time and network."""
    is_click = event.kind == _CLICK
    found = (event.reasons & _FACTS) | _timing(event, around)
    margin = 0.0 if is_click else around.span(BURST_SECONDS)
    if around.bursts:
        for burst in around.bursts_about(event.at, margin):
            found |= burst.reason | (_SMALL_PRINT if around.burst_small_print else 0)
    if event.network and gateway_of(event.network):
        found |= _GATEWAY
    if is_click:
        found |= _of_click(event, around)
        if crowded:
            found |= _CROWD
    else:
        found |= _SHOWN
    if around.submitted and event.at in around.submitted.get(event.kind, ()):
        found |= _SUBMITTED
    if is_click and event.at in around.stayed:
        found |= _STAYED
    return found


def _timing(event: HitSignal, around: SendContext) -> int:
    if around.sent_at is None:
        return 0
    after = event.at - around.sent_at
    if after < around.span(SOON_SECONDS):
        return _SOON
    if event.kind != _CLICK:
        return 0
    if after < around.span(EARLY_SECONDS):
        return _EARLY
    if (event.at, event.link) in around.in_company:
        return 0
    return _LATE_ALONE if after > around.span(LATE_SECONDS) else _ALONE


def _of_click(event: HitSignal, around: SendContext) -> int:
    found = around.everything.reasons(event) if around.everything else 0
    if around.disguised and (event.at, event.link, event.user_agent) in around.disguised:
        found |= _DISGUISE
    if around.checked and (event.at, event.link, event.user_agent) in around.checked:
        found |= _CHECKED
    if around.opens:
        found |= _reading(event.at, around)
    if event.at in around.viewed:
        found |= _VIEWED
    return found


def crowds(clicks: Iterable[tuple[int, int, int]], span: int) -> dict[int, set[int]]:
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
        if len(within) >= CROWD:
            found[network].update(instant for instant, _ in window)
    return found


def _reading(at: int, around: SendContext) -> int:
    """READ_BEFORE when the mail was shown long enough to be read before the click, UNREAD when only just."""
    reading = around.span(READING_SECONDS)
    if at - around.opens[0] >= reading:
        return _READ_BEFORE
    return _UNREAD if at >= around.opens[0] else 0
