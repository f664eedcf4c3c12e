"""Default channel groups of visits: a versioned, ordered set of rules.

The rules are those that Google documents for GA4 ("[GA4] Default channel group", Analytics Help); the first match wins.
Figures are therefore comparable with GA4. The source of a visit without UTM parameters is derived from a click id, else
from its referrer.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import IntEnum
from urllib.parse import urlsplit

from campaigns.i18n import N_
from campaigns.planning.models import Channel
from tracking.channels.referrers import SourceKind, registered_name, source_kind

RULES_VERSION = 1
"""Version of the rules and the source lists, stored with each result."""

MAX_VALUE_LENGTH = 100
"""Maximum length of a stored UTM value in characters."""


class ChannelGroup(IntEnum):
    """Channel groups in GA4's order. The number is stored and never reused."""

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
        """The activity channel under which the group is reported."""
        return _CHANNEL_BY_GROUP.get(self, Channel.OTHER)


@dataclass(frozen=True, slots=True)
class TrafficParameters:
    """Source of a visit as UTM parameters, in lower case; "" for unknown values."""

    source: str = ""
    medium: str = ""
    campaign: str = ""
    term: str = ""
    content: str = ""
    utm_id: str = ""

    @property
    def group(self) -> ChannelGroup:
        return channel_group_of(self)


_CLICK_IDS: tuple[tuple[str, str, str], ...] = (
    # Parameters that ad networks append to links. fbclid and igshid are appended to unpaid links, too.
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


def parse_traffic_parameters(
    query: Mapping[str, str], referrer: str, own_hosts: frozenset[str] = frozenset()
) -> TrafficParameters:
    """The source of a visit, from the query parameters and the referrer of its first page.

    Precedence: UTM parameters, click id, host of the referrer. A referrer on an own host is ignored.
    """
    if any(query.get(f"utm_{part}") for part in ("source", "medium", "campaign", "id")):
        utm = {part: _clean(query.get(f"utm_{part}", "")) for part in _UTM_NAMES}
        return TrafficParameters(utm["source"], utm["medium"], utm["campaign"], utm["term"], utm["content"], utm["id"])
    for name, source, medium in _CLICK_IDS:
        if query.get(name):
            return TrafficParameters(source, medium)
    host = host_of(referrer)
    if not host or host in own_hosts:
        return TrafficParameters()
    return TrafficParameters(_clean(host), _MEDIUM_BY_KIND.get(source_kind(host), "referral"))


_UTM_NAMES = ("source", "medium", "campaign", "term", "content", "id")
_MEDIUM_BY_KIND: dict[SourceKind | None, str] = {SourceKind.SEARCH: "organic", SourceKind.SOCIAL: "social"}


def host_of(address: str) -> str:
    """The host of an http(s) or app URL in lower case; "" for none."""
    try:
        return (urlsplit(address).hostname or "").strip(".")[:MAX_VALUE_LENGTH]
    except ValueError:
        return ""


def _clean(text: str) -> str:
    return " ".join("".join(sign if sign.isprintable() else " " for sign in text).split()).lower()[:MAX_VALUE_LENGTH]


_PAID_MEDIUM = re.compile(r".*cp.*|ppc|retargeting|paid.*")
_SHOP_CAMPAIGN = re.compile(r".*(([^a-df-z]|^)shop|shopping).*")
_VIDEO_MEDIUM = re.compile(r".*video.*")
_DISPLAY_MEDIA = {"display", "banner", "expandable", "interstitial", "cpm"}
_SOCIAL_MEDIA = {"social", "social-network", "social-media", "sm", "social network", "social media"}
_EMAIL_NAMES = {"email", "e-mail", "e_mail", "e mail"}
_NO_MEDIUM = {"", "(none)", "(not set)"}


@dataclass(frozen=True, slots=True)
class _RuleInput:
    arrival: TrafficParameters
    source_kind: SourceKind | None

    @property
    def is_paid(self) -> bool:
        return bool(_PAID_MEDIUM.fullmatch(self.arrival.medium))

    @property
    def is_shop(self) -> bool:
        return self.source_kind is SourceKind.SHOP or bool(_SHOP_CAMPAIGN.fullmatch(self.arrival.campaign))


def _is_direct(arrival: TrafficParameters) -> bool:
    return (
        arrival.source in {"", "(direct)"} and arrival.medium in _NO_MEDIUM and not (arrival.campaign or arrival.utm_id)
    )


_RULES: tuple[tuple[ChannelGroup, Callable[[_RuleInput], bool]], ...] = (
    (ChannelGroup.DIRECT, lambda f: _is_direct(f.arrival)),
    (ChannelGroup.CROSS_NETWORK, lambda f: "cross-network" in f.arrival.campaign),
    (ChannelGroup.PAID_SHOPPING, lambda f: f.is_paid and f.is_shop),
    (ChannelGroup.PAID_SEARCH, lambda f: f.is_paid and f.source_kind is SourceKind.SEARCH),
    (ChannelGroup.PAID_SOCIAL, lambda f: f.is_paid and f.source_kind is SourceKind.SOCIAL),
    (ChannelGroup.PAID_VIDEO, lambda f: f.is_paid and f.source_kind is SourceKind.VIDEO),
    (ChannelGroup.DISPLAY, lambda f: f.arrival.medium in _DISPLAY_MEDIA),
    (ChannelGroup.PAID_OTHER, lambda f: f.is_paid),
    # Not in GA4's rules: our own addition. It precedes the rules that would also match links from AI assistants.
    (ChannelGroup.ASSISTANTS, lambda f: f.source_kind is SourceKind.ASSISTANT),
    (ChannelGroup.ORGANIC_SHOPPING, lambda f: f.is_shop),
    (ChannelGroup.ORGANIC_SOCIAL, lambda f: f.source_kind is SourceKind.SOCIAL or f.arrival.medium in _SOCIAL_MEDIA),
    (
        ChannelGroup.ORGANIC_VIDEO,
        lambda f: f.source_kind is SourceKind.VIDEO or bool(_VIDEO_MEDIUM.fullmatch(f.arrival.medium)),
    ),
    (ChannelGroup.ORGANIC_SEARCH, lambda f: f.source_kind is SourceKind.SEARCH or f.arrival.medium == "organic"),
    (ChannelGroup.REFERRAL, lambda f: f.arrival.medium in {"referral", "app", "link"}),
    (ChannelGroup.EMAIL, lambda f: f.arrival.source in _EMAIL_NAMES or f.arrival.medium in _EMAIL_NAMES),
    (ChannelGroup.AFFILIATES, lambda f: f.arrival.medium == "affiliate"),
    (ChannelGroup.AUDIO, lambda f: f.arrival.medium == "audio"),
    (ChannelGroup.SMS, lambda f: "sms" in (f.arrival.source, f.arrival.medium)),
    (
        ChannelGroup.MOBILE_PUSH,
        lambda f: (
            f.arrival.medium.endswith("push")
            or "mobile" in f.arrival.medium
            or "notification" in f.arrival.medium
            or f.arrival.source == "firebase"
        ),
    ),
)


def channel_group_of(arrival: TrafficParameters) -> ChannelGroup:
    """The group of the first matching rule."""
    rule_input = _RuleInput(arrival, source_kind(arrival.source))
    return next((group for group, fits in _RULES if fits(rule_input)), ChannelGroup.UNASSIGNED)


def social_network_of(arrival: TrafficParameters) -> str:
    """The canonical name of a social or video network (``facebook``); "" for other sources."""
    if source_kind(arrival.source) not in (SourceKind.SOCIAL, SourceKind.VIDEO):
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
    ChannelGroup.DIRECT: N_("Direct"),
    ChannelGroup.CROSS_NETWORK: N_("Cross-network"),
    ChannelGroup.PAID_SHOPPING: N_("Paid shopping"),
    ChannelGroup.PAID_SEARCH: N_("Paid search"),
    ChannelGroup.PAID_SOCIAL: N_("Paid social"),
    ChannelGroup.PAID_VIDEO: N_("Paid video"),
    ChannelGroup.DISPLAY: N_("Display"),
    ChannelGroup.PAID_OTHER: N_("Other paid"),
    ChannelGroup.ORGANIC_SHOPPING: N_("Organic shopping"),
    ChannelGroup.ORGANIC_SOCIAL: N_("Organic social"),
    ChannelGroup.ORGANIC_VIDEO: N_("Organic video"),
    ChannelGroup.ORGANIC_SEARCH: N_("Organic search"),
    ChannelGroup.REFERRAL: N_("Referral"),
    ChannelGroup.EMAIL: N_("E-mail"),
    ChannelGroup.AFFILIATES: N_("Affiliates"),
    ChannelGroup.AUDIO: N_("Audio"),
    ChannelGroup.SMS: N_("SMS"),
    ChannelGroup.MOBILE_PUSH: N_("Mobile push"),
    ChannelGroup.ASSISTANTS: N_("AI assistants"),
    ChannelGroup.UNASSIGNED: N_("Unassigned"),
}
_CHANNEL_BY_GROUP = {
    ChannelGroup.PAID_SHOPPING: Channel.ADS,
    ChannelGroup.PAID_SEARCH: Channel.ADS,
    ChannelGroup.PAID_SOCIAL: Channel.ADS,
    ChannelGroup.PAID_VIDEO: Channel.ADS,
    ChannelGroup.DISPLAY: Channel.ADS,
    ChannelGroup.PAID_OTHER: Channel.ADS,
    ChannelGroup.CROSS_NETWORK: Channel.ADS,
    ChannelGroup.ORGANIC_SOCIAL: Channel.SOCIAL,
    ChannelGroup.ORGANIC_VIDEO: Channel.VIDEO,
    ChannelGroup.ORGANIC_SEARCH: Channel.SEARCH,
    ChannelGroup.EMAIL: Channel.EMAIL,
    ChannelGroup.SMS: Channel.SMS,
    ChannelGroup.MOBILE_PUSH: Channel.PUSH,
}
