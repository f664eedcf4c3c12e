"""Who it was: versioned rules that label hits human, machine, scanner or unknown, with reasons.

Facts are known when the hit arrives and give the first label; signals are known after the settle
window and give the final one by their sum. Both are kept as bits beside the event, so a label can
be explained in words and computed again. Generic bot lists are no help: they flag Gmail's proxy.
"""

import re
from bisect import bisect_right
from collections import Counter, deque
from collections.abc import Sequence
from enum import IntFlag
from functools import lru_cache
from math import ceil
from typing import NamedTuple

from campaigns.language import N_
from tracking.models import Kind, Label
from tracking.records import Flag

RULES = 1
"""Version of the rules, written beside every label they give."""

BURST_SECONDS = 10.0
BURST_LINKS = 3
BURST_SHARE = 0.6
SOON_SECONDS = 10.0
EARLY_SECONDS = 60.0
LATE_SECONDS = 600.0
READING_SECONDS = 3.0
CROWD_SECONDS = 60.0
CROWD = 5
SETTLE_SECONDS = 900.0


class Reason(IntFlag):
    """Why an event has its label. The first eight bits are facts of the hit itself."""

    HEAD = 1
    PREFETCH = 1 << 1
    MAIL_PRIVACY = 1 << 2
    GMAIL_PREFETCH = 1 << 3
    LIBRARY = 1 << 4
    IMAGE_PROXY = 1 << 5
    NAVIGATED = 1 << 6
    NOBODY = 1 << 7
    BURST = 1 << 8
    SOON = 1 << 9
    EARLY = 1 << 10
    CROWD = 1 << 11
    DISGUISE = 1 << 12
    LATE_ALONE = 1 << 13
    READ_BEFORE = 1 << 14
    VIEWED = 1 << 15
    SUBMITTED = 1 << 16
    SHOWN = 1 << 17

    @property
    def words(self) -> str:
        """This single reason as a sentence."""
        return _WORDS[self]


_WORDS = {
    Reason.HEAD: N_("It asked for headers only (HEAD)."),
    Reason.PREFETCH: N_("The request called itself a prefetch."),
    Reason.MAIL_PRIVACY: N_("It has the shape of Apple Mail Privacy Protection."),
    Reason.GMAIL_PREFETCH: N_("It has the shape of Gmail's prefetch."),
    Reason.LIBRARY: N_("The user agent is a program library, not a browser."),
    Reason.IMAGE_PROXY: N_("Gmail's image proxy fetched it, which it does when a person looks."),
    Reason.NAVIGATED: N_("The browser says that a person followed the link."),
    Reason.NOBODY: N_("It carries no person, so only the hit itself could be looked at."),
    Reason.BURST: N_("Many links of the same mail were followed within seconds."),
    Reason.SOON: N_("It came within seconds of the delivery."),
    Reason.EARLY: N_("It came within a minute of the delivery."),
    Reason.CROWD: N_("The same network followed links of many recipients within a minute."),
    Reason.DISGUISE: N_("Another program had followed the same link seconds before."),
    Reason.LATE_ALONE: N_("A single click long after the delivery."),
    Reason.READ_BEFORE: N_("The mail had been opened some seconds before."),
    Reason.VIEWED: N_("The landing page was shown after it."),
    Reason.SUBMITTED: N_("A form was sent after it, which decides."),
    Reason.SHOWN: N_("Pictures were loaded, as when a person looks."),
}

WEIGHTS = {
    Reason.BURST: 4,
    Reason.SOON: 2,
    Reason.EARLY: 1,
    Reason.CROWD: 2,
    Reason.DISGUISE: 2,
    Reason.NAVIGATED: -2,
    Reason.LATE_ALONE: -2,
    Reason.READ_BEFORE: -2,
    Reason.VIEWED: -5,
    Reason.SHOWN: -2,
}
"""Signals by weight; at +3 it is a scanner, at -2 a human. SUBMITTED decides by itself."""
SCANNER_FROM, HUMAN_TO = 3, -2

FACTS = Reason(0xFF)
_MACHINE = Reason.HEAD | Reason.PREFETCH | Reason.MAIL_PRIVACY | Reason.GMAIL_PREFETCH
_NO_PERSON = _MACHINE | Reason.LIBRARY

_LIBRARIES = re.compile(
    rb"^(?:curl|wget|python|aiohttp|httpx|okhttp|java/|go-http-client|libwww|lwp|node|axios|undici|got |ruby|perl|php|"
    rb"guzzle|apache-httpclient|winhttp|powershell|scrapy|headlesschrome)|headlesschrome/|phantomjs",
    re.IGNORECASE,
)


@lru_cache(maxsize=4096)
def _of_user_agent(user_agent: bytes, kind: int) -> Reason:
    if not user_agent or _LIBRARIES.search(user_agent):
        return Reason.LIBRARY
    if kind != Kind.OPEN:
        return Reason(0)
    if user_agent == b"Mozilla/5.0":
        return Reason.MAIL_PRIVACY
    if b"Chrome/42.0.2311.135" in user_agent and b"Edge/12.246" in user_agent:
        return Reason.GMAIL_PREFETCH
    return Reason.IMAGE_PROXY if b"GoogleImageProxy" in user_agent else Reason(0)


def facts(kind: int, flags: int, user_agent: bytes) -> Reason:
    """What the hit itself tells."""
    found = _of_user_agent(user_agent, kind)
    if flags:
        if flags & Flag.HEAD:
            found |= Reason.HEAD
        if flags & Flag.PREFETCH:
            found |= Reason.PREFETCH
        if flags & Flag.NAVIGATED:
            found |= Reason.NAVIGATED
    return found


def is_no_person(reasons: int) -> bool:
    """Whether the facts alone rule a person out."""
    return bool(reasons & _NO_PERSON)


def first_label(found: Reason) -> Label:
    """The label that the facts alone allow; SETTLING when time must tell."""
    if found & _MACHINE:
        return Label.MACHINE
    return Label.SCANNER if found & Reason.LIBRARY else Label.SETTLING


class Seen(NamedTuple):
    """One event of a send, as the signals look at it; instants in microseconds."""

    at: int
    kind: int
    link: int
    reasons: int
    user_agent: int


class Surroundings:
    """What else is known about a send when its events settle.

    Whatever takes a look at other events is worked out once for all of them: somebody may follow
    one link ten thousand times.
    """

    def __init__(
        self, sent_at: int | None, links: int, events: Sequence[Seen], submitted_at: Sequence[int], scale: float = 1.0
    ) -> None:
        """``links``: how many tracked links the mail holds, 0 for unknown. Every threshold is divided
        by ``scale`` (``TIME_SCALE``)."""
        self.sent_at, self._scale = sent_at, scale
        clicks = sorted(e for e in events if e.kind == Kind.CLICK)
        people = [e for e in events if not is_no_person(e.reasons)]
        self.bursts = _bursts(clicks, links, self.span(BURST_SECONDS))
        self.disguised = _disguised(clicks, self.span(BURST_SECONDS))
        self.in_company = _in_company(clicks, self.span(BURST_SECONDS))
        self.first_open = min((e.at for e in people if e.kind == Kind.OPEN), default=None)
        self.viewed = last_before([e.at for e in people if e.kind == Kind.VIEW], events, Kind.CLICK)
        self.submitted = {kind: last_before(submitted_at, events, kind) for kind in (Kind.CLICK, Kind.VIEW)}

    def span(self, seconds: float) -> float:
        return seconds * 1_000_000 / self._scale


def _bursts(clicks: Sequence[Seen], links: int, span: float) -> list[tuple[float, float]]:
    """Stretches of time in which clicks went to too many links within ten seconds.

    Two links are the least: with a single link in a mail, every click would be "all links".
    """
    share = ceil(links * BURST_SHARE) if links else BURST_LINKS
    needed = min(BURST_LINKS, max(2, share))
    found: list[tuple[float, float]] = []
    window: deque[Seen] = deque()
    within: Counter[int] = Counter()
    for click in clicks:
        window.append(click)
        within[click.link] += 1
        while window[0].at < click.at - span:
            gone = window.popleft()
            within[gone.link] -= 1
            if not within[gone.link]:
                del within[gone.link]
        if len(within) >= needed:
            start = window[0].at
            if found and start <= found[-1][1]:
                start = int(found.pop()[0])
            found.append((start, click.at))
    return found


def _disguised(clicks: Sequence[Seen], span: float) -> set[tuple[int, int, int]]:
    """Clicks (instant, link, user agent) on a link that another program had followed seconds before."""
    found = set()
    latest: dict[int, list[tuple[int, int]]] = {}  # By link, the last click of each of two user agents.
    for click in clicks:
        seen = latest.setdefault(click.link, [])
        if any(agent != click.user_agent and click.at - at <= span for at, agent in seen):
            found.add((click.at, click.link, click.user_agent))
        others = [(at, agent) for at, agent in seen if agent != click.user_agent]
        seen[:] = [*others[-1:], (click.at, click.user_agent)]
    return found


def _in_company(clicks: Sequence[Seen], span: float) -> set[tuple[int, int]]:
    """Clicks (instant, link) that have one on another link within ten seconds before or after."""
    found = set()
    for ordered in (clicks, clicks[::-1]):
        other: Seen | None = None  # The nearest click on another link than the last one's.
        last: Seen | None = None
        for click in ordered:
            if last is not None and last.link != click.link:
                other = last
            if other is not None and other.link != click.link and abs(click.at - other.at) <= span:
                found.add((click.at, click.link))
            last = click
    return found


def last_before(instants: Sequence[int], events: Sequence[Seen], kind: int) -> set[int]:
    """The instants of the events of a kind, by somebody who may be a person, that come last before each instant."""
    may_be = sorted(e.at for e in events if e.kind == kind and not is_no_person(e.reasons))
    places = (bisect_right(may_be, instant) for instant in instants)
    return {may_be[place - 1] for place in places if place}


def signals(event: Seen, around: Surroundings, crowded: bool) -> Reason:
    """What the events of the same send, the delivery's time and the network's traffic say."""
    found = (Reason(event.reasons) & FACTS) | _timing(event, around)
    margin = 0.0 if event.kind == Kind.CLICK else around.span(BURST_SECONDS)
    if any(start - margin <= event.at <= end + margin for start, end in around.bursts):
        found |= Reason.BURST
    if event.kind == Kind.CLICK:
        found |= _of_click(event, around)
        if crowded:
            found |= Reason.CROWD
    else:
        found |= Reason.SHOWN
    if event.at in around.submitted.get(Kind(event.kind), ()):
        found |= Reason.SUBMITTED
    return found


def _timing(event: Seen, around: Surroundings) -> Reason:
    if around.sent_at is None:
        return Reason(0)
    after = event.at - around.sent_at
    if after < around.span(SOON_SECONDS):
        return Reason.SOON
    if event.kind != Kind.CLICK:
        return Reason(0)
    if after < around.span(EARLY_SECONDS):
        return Reason.EARLY
    alone = (event.at, event.link) not in around.in_company
    return Reason.LATE_ALONE if alone and after > around.span(LATE_SECONDS) else Reason(0)


def _of_click(event: Seen, around: Surroundings) -> Reason:
    found = Reason(0)
    if (event.at, event.link, event.user_agent) in around.disguised:
        found |= Reason.DISGUISE
    if around.first_open is not None and event.at - around.first_open >= around.span(READING_SECONDS):
        found |= Reason.READ_BEFORE
    if event.at in around.viewed:
        found |= Reason.VIEWED
    return found


def final_label(found: Reason) -> Label:
    """The label by the sum of the signals' weights."""
    if found & _NO_PERSON:
        return first_label(found)
    if found & Reason.SUBMITTED:
        return Label.HUMAN
    total = sum(weight for reason, weight in WEIGHTS.items() if found & reason)
    if total >= SCANNER_FROM:
        return Label.SCANNER
    return Label.HUMAN if total <= HUMAN_TO else Label.UNKNOWN


class Spoken(NamedTuple):
    """One rule that spoke: its sentence and its weight in the sum (None: no weight, or it decides)."""

    words: str
    weight: int | None


def why(reasons: int) -> list[Spoken]:
    """The reasons of an event's label, strongest first."""
    spoken = [Spoken(reason.words, WEIGHTS.get(reason)) for reason in Reason if reason & reasons]
    return sorted(spoken, key=lambda said: -abs(said.weight or 99))
