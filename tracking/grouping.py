"""The default channel group of a visit: which channel brought it, by a versioned set of rules.

The rules are those that Google documents for GA4's default channel group ("[GA4] Default channel
group", Analytics Help), first match wins, so that figures can be laid side by side. A visit that
carries no UTM gets its source from a click id, then from its referrer.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import IntEnum
from urllib.parse import urlsplit

from campaigns.language import N_
from campaigns.planning.models import Channel
from tracking.sources import Site, kind_of, registered_name

RULES = 1
"""Version of the rule set and of the lists of sources, kept with what they decided."""

LONGEST = 100
"""Characters kept of each UTM value."""


class Group(IntEnum):
    """Groups in the order of GA4's list; the number is stored and never reused."""

    DIRECT = 1
    CROSS_NETWORK = 2
    PAID_SHOPPING = 3
    PAID_SEARCH = 4
    PAID_SOCIAL = 5
    PAID_VIDEO = 6
    DISPLAY = 7
    PAID_OTHER = 8
    ORGANIC_SHOPPING = 9
    ORGANIC_SOCIAL = 10
    ORGANIC_VIDEO = 11
    ORGANIC_SEARCH = 12
    REFERRAL = 13
    EMAIL = 14
    AFFILIATES = 15
    AUDIO = 16
    SMS = 17
    MOBILE_PUSH = 18
    ASSISTANTS = 19
    UNASSIGNED = 20

    @property
    def label(self) -> str:
        return _LABELS[self]

    @property
    def channel(self) -> Channel:
        """The activity channel under which its figures are shown."""
        return _CHANNELS.get(self, Channel.OTHER)


@dataclass(frozen=True, slots=True)
class Arrival:
    """How a visit came, in the words of UTM; all lower case. Empty where nothing is known."""

    source: str = ""
    medium: str = ""
    campaign: str = ""
    term: str = ""
    content: str = ""
    utm_id: str = ""

    @property
    def group(self) -> Group:
        return group_of(self)


_CLICK_IDS: tuple[tuple[str, str, str], ...] = (
    # What an ad network appends to its ads' links; fbclid and igshid come with unpaid links too.
    ("gclid", "google", "cpc"),
    ("gbraid", "google", "cpc"),
    ("wbraid", "google", "cpc"),
    ("dclid", "google", "display"),
    ("msclkid", "bing", "cpc"),
    ("yclid", "yandex", "cpc"),
    ("ttclid", "tiktok", "paid-social"),
    ("twclid", "twitter", "paid-social"),
    ("li_fat_id", "linkedin", "paid-social"),
    ("rdt_cid", "reddit", "paid-social"),
    ("epik", "pinterest", "paid-social"),
    ("fbclid", "facebook", "social"),
    ("igshid", "instagram", "social"),
)
CLICK_IDS = frozenset(name for name, _, _ in _CLICK_IDS)
CLICK_SOURCES = frozenset((source, medium) for _, source, medium in _CLICK_IDS)


def arrival_of(query: Mapping[str, str], referrer: str, own_hosts: frozenset[str] = frozenset()) -> Arrival:
    """How the visit came whose first page had these query parameters and this referrer.

    UTM decides, then a click id, then the referrer's host. A referrer of our own hosts says nothing.
    """
    if any(query.get(f"utm_{part}") for part in ("source", "medium", "campaign", "id")):
        utm = {part: _clean(query.get(f"utm_{part}", "")) for part in _UTM}
        return Arrival(utm["source"], utm["medium"], utm["campaign"], utm["term"], utm["content"], utm["id"])
    for name, source, medium in _CLICK_IDS:
        if query.get(name):
            return Arrival(source, medium)
    host = host_of(referrer)
    if not host or host in own_hosts:
        return Arrival()
    return Arrival(_clean(host), _MEDIA.get(kind_of(host), "referral"))


_UTM = ("source", "medium", "campaign", "term", "content", "id")
_MEDIA: dict[Site | None, str] = {Site.SEARCH: "organic", Site.SOCIAL: "social"}


def host_of(address: str) -> str:
    """The host of an http(s) or app address, lower case; empty when there is none."""
    try:
        return (urlsplit(address).hostname or "").strip(".")[:LONGEST]
    except ValueError:
        return ""


def _clean(text: str) -> str:
    return " ".join("".join(sign if sign.isprintable() else " " for sign in text).split()).lower()[:LONGEST]


_PAID = re.compile(r".*cp.*|ppc|retargeting|paid.*")
_SHOP = re.compile(r".*(([^a-df-z]|^)shop|shopping).*")
_VIDEO = re.compile(r".*video.*")
_DISPLAY = {"display", "banner", "expandable", "interstitial", "cpm"}
_SOCIAL = {"social", "social-network", "social-media", "sm", "social network", "social media"}
_EMAIL = {"email", "e-mail", "e_mail", "e mail"}
_NOTHING = {"", "(none)", "(not set)"}


@dataclass(frozen=True, slots=True)
class _Facts:
    arrival: Arrival
    site: Site | None

    @property
    def paid(self) -> bool:
        return bool(_PAID.fullmatch(self.arrival.medium))

    @property
    def shop(self) -> bool:
        return self.site is Site.SHOP or bool(_SHOP.fullmatch(self.arrival.campaign))


def _direct(seen: Arrival) -> bool:
    return seen.source in {"", "(direct)"} and seen.medium in _NOTHING and not (seen.campaign or seen.utm_id)


_RULES: tuple[tuple[Group, Callable[[_Facts], bool]], ...] = (
    (Group.DIRECT, lambda f: _direct(f.arrival)),
    (Group.CROSS_NETWORK, lambda f: "cross-network" in f.arrival.campaign),
    (Group.PAID_SHOPPING, lambda f: f.paid and f.shop),
    (Group.PAID_SEARCH, lambda f: f.paid and f.site is Site.SEARCH),
    (Group.PAID_SOCIAL, lambda f: f.paid and f.site is Site.SOCIAL),
    (Group.PAID_VIDEO, lambda f: f.paid and f.site is Site.VIDEO),
    (Group.DISPLAY, lambda f: f.arrival.medium in _DISPLAY),
    (Group.PAID_OTHER, lambda f: f.paid),
    # Later than GA4's page: a dated addition of our own, before the rules that an assistant's link would meet.
    (Group.ASSISTANTS, lambda f: f.site is Site.ASSISTANT),
    (Group.ORGANIC_SHOPPING, lambda f: f.shop),
    (Group.ORGANIC_SOCIAL, lambda f: f.site is Site.SOCIAL or f.arrival.medium in _SOCIAL),
    (Group.ORGANIC_VIDEO, lambda f: f.site is Site.VIDEO or bool(_VIDEO.fullmatch(f.arrival.medium))),
    (Group.ORGANIC_SEARCH, lambda f: f.site is Site.SEARCH or f.arrival.medium == "organic"),
    (Group.REFERRAL, lambda f: f.arrival.medium in {"referral", "app", "link"}),
    (Group.EMAIL, lambda f: f.arrival.source in _EMAIL or f.arrival.medium in _EMAIL),
    (Group.AFFILIATES, lambda f: f.arrival.medium == "affiliate"),
    (Group.AUDIO, lambda f: f.arrival.medium == "audio"),
    (Group.SMS, lambda f: "sms" in (f.arrival.source, f.arrival.medium)),
    (
        Group.MOBILE_PUSH,
        lambda f: (
            f.arrival.medium.endswith("push")
            or "mobile" in f.arrival.medium
            or "notification" in f.arrival.medium
            or f.arrival.source == "firebase"
        ),
    ),
)


def group_of(arrival: Arrival) -> Group:
    """The first group whose rule fits."""
    facts = _Facts(arrival, kind_of(arrival.source))
    return next((group for group, fits in _RULES if fits(facts)), Group.UNASSIGNED)


def network_of(arrival: Arrival) -> str:
    """The network's plain name for "which network sends visitors to which page": ``facebook``."""
    if kind_of(arrival.source) not in (Site.SOCIAL, Site.VIDEO):
        return ""
    name = registered_name(arrival.source)
    return _ALIASES.get(arrival.source, _ALIASES.get(name, name))


_ALIASES = {
    "fb": "facebook",
    "ig": "instagram",
    "lnkd": "linkedin",
    "t.co": "twitter",
    "x": "twitter",
    "x.com": "twitter",
    "youtu.be": "youtube",
    "youtu": "youtube",
    "vkontakte": "vk",
    "t.me": "telegram",
    "wa.me": "whatsapp",
    "bsky": "bluesky",
}

_LABELS = {
    Group.DIRECT: N_("Direct"),
    Group.CROSS_NETWORK: N_("Cross-network"),
    Group.PAID_SHOPPING: N_("Paid shopping"),
    Group.PAID_SEARCH: N_("Paid search"),
    Group.PAID_SOCIAL: N_("Paid social"),
    Group.PAID_VIDEO: N_("Paid video"),
    Group.DISPLAY: N_("Display"),
    Group.PAID_OTHER: N_("Other paid"),
    Group.ORGANIC_SHOPPING: N_("Organic shopping"),
    Group.ORGANIC_SOCIAL: N_("Organic social"),
    Group.ORGANIC_VIDEO: N_("Organic video"),
    Group.ORGANIC_SEARCH: N_("Organic search"),
    Group.REFERRAL: N_("Referral"),
    Group.EMAIL: N_("E-mail"),
    Group.AFFILIATES: N_("Affiliates"),
    Group.AUDIO: N_("Audio"),
    Group.SMS: N_("SMS"),
    Group.MOBILE_PUSH: N_("Mobile push"),
    Group.ASSISTANTS: N_("AI assistants"),
    Group.UNASSIGNED: N_("Unassigned"),
}
_CHANNELS = {
    Group.PAID_SHOPPING: Channel.ADS,
    Group.PAID_SEARCH: Channel.ADS,
    Group.PAID_SOCIAL: Channel.ADS,
    Group.PAID_VIDEO: Channel.ADS,
    Group.DISPLAY: Channel.ADS,
    Group.PAID_OTHER: Channel.ADS,
    Group.CROSS_NETWORK: Channel.ADS,
    Group.ORGANIC_SOCIAL: Channel.SOCIAL,
    Group.ORGANIC_VIDEO: Channel.VIDEO,
    Group.ORGANIC_SEARCH: Channel.SEARCH,
    Group.EMAIL: Channel.EMAIL,
    Group.SMS: Channel.SMS,
    Group.MOBILE_PUSH: Channel.PUSH,
}
