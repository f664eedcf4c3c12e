"""Bot detection rules: versioned, weighted signals that label hits human, machine, scanner or unknown.

Immediate signals are known when the hit arrives and give the first label. Deferred signals
(:mod:`tracking.bots.signals`) are known after the settle window; the sum of all weights gives the final label. Both are
stored as bits in the event's reasons, so that a label can be explained and recomputed. Generic bot lists do not help
with opens: they flag Gmail's image proxy. tests/benchmarks/bot_rules.py measures precision and recall.
"""

import re
from enum import IntFlag
from functools import lru_cache
from typing import NamedTuple

from campaigns.i18n import N_
from tracking.models.events import HitKind, TrafficLabel
from tracking.spool.record_codec import RequestFlag

RULES_VERSION = 3
"""Version of the rules, stored with every label."""

BURST_SECONDS = 10.0
BURST_LINKS = 5
SEVERAL_LINKS = 3
BURST_SHARE = 0.6
ALL_LINKS = 4
ALL_SHARE = 0.8
SOON_SECONDS = 10.0
EARLY_SECONDS = 60.0
LATE_SECONDS = 600.0
READING_SECONDS = 3.0
CROWD_SECONDS = 60.0
CROWD_RECIPIENTS = 5
SETTLE_SECONDS = 900.0


class LabelReason(IntFlag):
    """Reasons for a label, as bits. IMMEDIATE_SIGNALS is the mask of those in the hit itself. A bit never changes its
    meaning: it must also explain labels that older versions gave.
    """

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
    ROBOT = 1 << 18
    GATEWAY = 1 << 19
    EVERYTHING = 1 << 20
    SMALL_PRINT = 1 << 21
    ALONE = 1 << 22
    CHECKED = 1 << 23
    SEVERAL = 1 << 24
    UNREAD = 1 << 25
    STAYED = 1 << 26

    @property
    def description(self) -> str:
        """The reason as a sentence (msgid). Only for a single bit."""
        return _DESCRIPTIONS[self]

    @property
    def weight(self) -> int | None:
        """Its weight in the score; None when it has no weight or decides alone."""
        return WEIGHTS.get(self)

    @property
    def is_decisive(self) -> bool:
        """Whether the reason decides the label without the score."""
        return bool(self & (_NON_HUMAN | LabelReason.SUBMITTED | LabelReason.STAYED))


_DESCRIPTIONS = {
    LabelReason.HEAD: N_("It asked for headers only (HEAD)."),
    LabelReason.PREFETCH: N_("The request called itself a prefetch."),
    LabelReason.MAIL_PRIVACY: N_("It has the shape of Apple Mail Privacy Protection."),
    LabelReason.GMAIL_PREFETCH: N_("It has the shape of Gmail's prefetch."),
    LabelReason.LIBRARY: N_("The user agent is a program library, not a browser."),
    LabelReason.ROBOT: N_("The program calls itself a robot."),
    LabelReason.IMAGE_PROXY: N_("Gmail's image proxy fetched it, which it does when a person looks."),
    LabelReason.NAVIGATED: N_("The browser says that a person followed the link."),
    LabelReason.NOBODY: N_("It carries no person, so only the hit itself could be looked at."),
    LabelReason.BURST: N_("Many links of the same mail were followed within seconds."),
    LabelReason.SEVERAL: N_("Three links or more of the same mail were followed within seconds."),
    LabelReason.EVERYTHING: N_("The same program or network followed nearly every link of the mail."),
    LabelReason.SMALL_PRINT: N_("A legal or unsubscribe link was among those that were followed."),
    LabelReason.SOON: N_("It came within seconds of the delivery."),
    LabelReason.EARLY: N_("It came within a minute of the delivery."),
    LabelReason.CROWD: N_("The same network followed links of many recipients within a minute."),
    LabelReason.GATEWAY: N_("It came from a network of mail gateways, where nobody browses."),
    LabelReason.DISGUISE: N_("Another program had followed the same link seconds before."),
    LabelReason.CHECKED: N_("Another program from another network followed the same link seconds later."),
    LabelReason.LATE_ALONE: N_("A single click long after the delivery."),
    LabelReason.ALONE: N_("A single click, more than a minute after the delivery."),
    LabelReason.UNREAD: N_("The link was followed as soon as the mail was shown, without time to read."),
    LabelReason.READ_BEFORE: N_("The mail had been opened some seconds before."),
    LabelReason.VIEWED: N_("The landing page was shown after it."),
    LabelReason.SUBMITTED: N_("A form was sent after it, which decides."),
    LabelReason.STAYED: N_("A visit of our website followed in which somebody stayed, which decides."),
    LabelReason.SHOWN: N_("Pictures were loaded, as when a person looks."),
}

WEIGHTS = {
    LabelReason.BURST: 4,
    LabelReason.EVERYTHING: 3,
    LabelReason.GATEWAY: 3,
    LabelReason.CHECKED: 3,
    LabelReason.SMALL_PRINT: 2,
    LabelReason.SEVERAL: 2,
    LabelReason.SOON: 2,
    LabelReason.UNREAD: 2,
    LabelReason.CROWD: 2,
    LabelReason.DISGUISE: 2,
    LabelReason.EARLY: 1,
    LabelReason.ALONE: -1,
    LabelReason.NAVIGATED: -2,
    LabelReason.LATE_ALONE: -2,
    LabelReason.READ_BEFORE: -2,
    LabelReason.SHOWN: -2,
    LabelReason.VIEWED: -3,
}
"""Signals by weight. One point stands for odds of about three to one: -2 means nine to one for a person, 3 more than
twenty to one against. The reasons for each weight:

BURST 4: nobody follows five links, or most links of a short mail, within ten seconds. It outweighs a late time and
    a page view, which a gateway that renders pages causes as well.
SEVERAL 2: three or four links within ten seconds: a person opening tabs, or a slower program.
EVERYTHING 3: people follow one or two links out of five; patient programs follow all of them. Counted by user agent
    and by network, so that a person's own click beside them is not affected.
GATEWAY 3: a list of published networks (:mod:`tracking.bots.gateways`); sufficient alone, since nobody browses there.
CHECKED 3: a check at the time of the click precedes the person's request, from another network, and shares the
    person's context (the mail was read before, no other link was followed), which counts -3 or -4.
SMALL_PRINT 2: counts only with BURST or EVERYTHING; few people look for legal links, programs do not choose.
SOON 2, EARLY 1: some people are quick (a notification on a phone), so time alone never gives SCANNER.
UNREAD 2: a person needs some seconds between seeing a mail and following a link; proxies prefetch at once.
CROWD 2: a gateway, or an office behind one address; people in an office have other signals in their favour.
DISGUISE 2: a second request under another user agent, or a person right behind a check, with other signals in favour.
NAVIGATED -2: browsers send it for a person's action. Its absence means nothing (Safari, plain HTTP), and a headless
    browser may send it, so it never outweighs a burst.
ALONE -1, LATE_ALONE -2 (one of them): programs come early and in numbers. A sandbox that follows a single link after
    ten minutes from an unlisted network cannot be distinguished from a person.
READ_BEFORE -2: images were shown to this recipient some seconds before, by a client not known to prefetch.
SHOWN -2: the same for the open itself: sufficient alone, unless another signal speaks against it.
VIEWED -3: the client that followed the link loaded our landing page's pixel. Renderers do that, too, so it weighs
    less than a submitted form, which decides (SUBMITTED).
"""
SCANNER_MIN_SCORE, HUMAN_MAX_SCORE = 3, -2

IMMEDIATE_SIGNALS = LabelReason(0xFF) | LabelReason.ROBOT
_MACHINE = LabelReason.HEAD | LabelReason.PREFETCH | LabelReason.MAIL_PRIVACY | LabelReason.GMAIL_PREFETCH
_PROGRAM = LabelReason.LIBRARY | LabelReason.ROBOT
_NON_HUMAN = _MACHINE | _PROGRAM
_NON_HUMAN_BITS = int(_NON_HUMAN)

_LIBRARIES = re.compile(
    rb"^(?:curl|wget|python|aiohttp|httpx|okhttp|java/|go-http-client|libwww|lwp|node|axios|undici|got |ruby|perl|php|"
    rb"guzzle|apache-httpclient|winhttp|powershell|scrapy|headlesschrome)|headlesschrome/|phantomjs",
    re.IGNORECASE,
)
# Robots identify themselves: "…bot/1.0", or a URL for complaints with a plus in front. "Cubot" is a phone brand.
_ROBOTS = re.compile(
    rb"bot[/;)]|\+https?://|crawler|spider|preview/|^whatsapp/|link ?check|url ?scan|safebrowsing", re.IGNORECASE
)


@lru_cache(maxsize=4096)
def _user_agent_signal(user_agent: bytes, kind: int) -> LabelReason:
    if not user_agent or _LIBRARIES.search(user_agent):
        return LabelReason.LIBRARY
    if kind != HitKind.OPEN:
        return LabelReason.ROBOT if _ROBOTS.search(user_agent) else LabelReason(0)
    if user_agent == b"Mozilla/5.0":
        return LabelReason.MAIL_PRIVACY
    if b"Chrome/42.0.2311.135" in user_agent and b"Edge/12.246" in user_agent:
        return LabelReason.GMAIL_PREFETCH
    return LabelReason.IMAGE_PROXY if b"GoogleImageProxy" in user_agent else LabelReason(0)


@lru_cache(maxsize=8192)
def immediate_signals(kind: int, flags: int, user_agent: bytes) -> LabelReason:
    """Immediate signals: what the hit itself shows."""
    signals = _user_agent_signal(user_agent, kind)
    if flags & RequestFlag.HEAD:
        signals |= LabelReason.HEAD
    if flags & RequestFlag.PREFETCH:
        signals |= LabelReason.PREFETCH
    if flags & RequestFlag.NAVIGATED:
        signals |= LabelReason.NAVIGATED
    return signals


def is_non_human(reasons: int) -> bool:
    """Whether the immediate signals alone exclude a person."""
    return bool(reasons & _NON_HUMAN_BITS)


def first_label(reasons: LabelReason) -> TrafficLabel:
    """The label by immediate signals alone; SETTLING when they do not decide."""
    if reasons & _MACHINE:
        return TrafficLabel.MACHINE
    return TrafficLabel.SCANNER if reasons & _PROGRAM else TrafficLabel.SETTLING


@lru_cache(maxsize=65_536)
def final_label(reasons: int) -> TrafficLabel:
    """The label by the score of all signals."""
    if reasons & _NON_HUMAN:
        return first_label(LabelReason(reasons))
    if reasons & (LabelReason.SUBMITTED | LabelReason.STAYED):
        return TrafficLabel.HUMAN
    total = score(reasons)
    if total >= SCANNER_MIN_SCORE:
        return TrafficLabel.SCANNER
    return TrafficLabel.HUMAN if total <= HUMAN_MAX_SCORE else TrafficLabel.UNKNOWN


def score(reasons: int) -> int:
    """The sum of the weights."""
    return sum(weight for reason, weight in WEIGHTS.items() if reasons & reason)


class ReasonDetail(NamedTuple):
    """One reason of a label: its description (msgid) and its weight (None: no weight, or it decides alone)."""

    description: str
    weight: int | None
    is_decisive: bool = False


def reason_details(reasons: int) -> list[ReasonDetail]:
    """The reasons of a label, strongest first."""
    details = [
        ReasonDetail(reason.description, reason.weight, reason.is_decisive)
        for reason in LabelReason
        if reason & reasons
    ]
    return sorted(details, key=lambda detail: (not detail.is_decisive, -abs(detail.weight or 0)))


_SMALL_PRINT_PATTERN = re.compile(
    r"unsubscribe|opt-?out|privacy|imprint|legal|terms|(?:email|mail|subscription)[-_ ]?preferences"
    r"|impressum|datenschutz|désabonn|desabonn|désinscri|confidentialit|mentions[-_ ]l"
    r"|отпис|конфиденциальн|لغو اشتراک|حریم خصوصی|abunəlik|გამოწერ",
    re.IGNORECASE,
)


def is_small_print(url: str, label: str) -> bool:
    """Whether a link leads to a page that few people look for: unsubscribe, terms, privacy."""
    return bool(_SMALL_PRINT_PATTERN.search(url) or _SMALL_PRINT_PATTERN.search(label))
