"""Who it was: versioned rules that label hits human, machine, scanner or unknown, with reasons.

Facts are known when the hit arrives and give the first label; signals are known after the settle
window and give the final one by their sum. Both are kept as bits beside the event, so a label can
be explained in words and computed again. Generic bot lists are no help: they flag Gmail's proxy.
"""

import re
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


class Surroundings(NamedTuple):
    """What else is known about a send when its events settle."""

    sent_at: int | None
    links: int
    """How many tracked links its mail holds."""
    events: Sequence[Seen]
    submitted_at: Sequence[int]
    scale: float = 1.0
    """Every threshold is divided by it (``TIME_SCALE``)."""

    def span(self, seconds: float) -> float:
        return seconds * 1_000_000 / self.scale


def signals(event: Seen, around: Surroundings, crowded: bool) -> Reason:
    """What the events of the same send, the delivery's time and the network's traffic say."""
    found = Reason(event.reasons) & FACTS
    if event.kind != Kind.CLICK:
        found |= Reason.SHOWN
    if _in_burst(event, around):
        found |= Reason.BURST
    found |= _timing(event, around)
    if event.kind == Kind.CLICK:
        found |= _of_click(event, around)
        if crowded:
            found |= Reason.CROWD
    if event.kind != Kind.OPEN and led_to(event, around.submitted_at, around.events):
        found |= Reason.SUBMITTED
    return found


def _in_burst(event: Seen, around: Surroundings) -> bool:
    """Whether some window of ten seconds that touches this event holds clicks on too many links.

    Two links are the least: with a single link in a mail, every click would be "all links".
    """
    span = around.span(BURST_SECONDS)
    share = ceil(around.links * BURST_SHARE) if around.links else BURST_LINKS
    needed = min(BURST_LINKS, max(2, share))
    clicks = [e for e in around.events if e.kind == Kind.CLICK and abs(e.at - event.at) <= 2 * span]
    before = 0.0 if event.kind == Kind.CLICK else span
    return any(
        first.at - before <= event.at <= first.at + span
        and len({e.link for e in clicks if first.at <= e.at <= first.at + span}) >= needed
        for first in clicks
    )


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
    near = [e for e in around.events if e.kind == Kind.CLICK and abs(e.at - event.at) <= around.span(BURST_SECONDS)]
    alone = len({e.link for e in near}) <= 1
    return Reason.LATE_ALONE if alone and after > around.span(LATE_SECONDS) else Reason(0)


def _of_click(event: Seen, around: Surroundings) -> Reason:
    found = Reason(0)
    views = []
    for other in around.events:
        before = event.at - other.at
        if other.kind == Kind.CLICK:
            if other.link == event.link and other.user_agent != event.user_agent and _within(before, around):
                found |= Reason.DISGUISE
        elif not is_no_person(other.reasons):
            if other.kind == Kind.VIEW:
                views.append(other.at)
            elif before >= around.span(READING_SECONDS):
                found |= Reason.READ_BEFORE
    return found | Reason.VIEWED if led_to(event, views, around.events) else found


def led_to(event: Seen, instants: Sequence[int], events: Sequence[Seen]) -> bool:
    """Whether this event is the last of its kind, by somebody who may be a person, before one of ``instants``."""
    rivals = [e.at for e in events if e.kind == event.kind and e.at > event.at and not is_no_person(e.reasons)]
    return any(event.at <= at and not any(rival <= at for rival in rivals) for at in instants)


def _within(before: int, around: Surroundings) -> bool:
    return 0 <= before <= around.span(BURST_SECONDS)


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
