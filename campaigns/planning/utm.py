"""The UTM rule: how the links of an activity are named for whoever counts visits.

One place for builders of links and for whoever checks visits against the rule: lower case, words joined
by one hyphen, and a medium for each channel that stands in the default channel groups.
"""

import re
import unicodedata
from collections.abc import Mapping
from urllib.parse import parse_qsl, urlencode, urlsplit

from campaigns.planning.models import Activity, Channel

FIELDS = ("utm_source", "utm_medium", "utm_campaign", "utm_id", "utm_content")
SPLITTING = (" ", "_")
"""Signs between words that a hyphen should join: one spells it so, the next otherwise, and the visits split."""
LONGEST = 60
"""Characters of one value."""

MEDIUM: Mapping[Channel, str] = {
    Channel.EMAIL: "email",
    Channel.SOCIAL: "social",
    Channel.SEARCH: "organic",
    Channel.ADS: "cpc",
    Channel.CONTENT: "referral",
    Channel.VIDEO: "video",
    Channel.WEB: "referral",
    Channel.EVENT: "link",
    Channel.SMS: "sms",
    Channel.PUSH: "push",
    Channel.OTHER: "link",
}
"""The closed vocabulary of ``utm_medium``."""


def word(text: str) -> str:
    """``text`` as one UTM value: "Spring Tea 2026!" → "spring-tea-2026"."""
    plain = unicodedata.normalize("NFKC", text).casefold()
    return re.sub(r"[\W_]+", "-", plain).strip("-")[:LONGEST].rstrip("-")


def rule(activity: Activity, label: str) -> dict[str, str]:
    """The UTM of a link of ``activity`` that is called ``label``."""
    values = {
        "utm_source": source(activity.channel, activity.url),
        "utm_medium": MEDIUM[activity.channel],
        "utm_campaign": word(activity.campaign.name),
        "utm_id": str(activity.campaign_id),
        "utm_content": word(label),
    }
    return {name: value for name, value in values.items() if value}


def source(channel: Channel, url: str) -> str:
    """The ``utm_source`` of an activity of this channel that can be seen at ``url``."""
    return _site(url) or channel.value


def values(query: str) -> dict[str, str]:
    """The fields of a query, as :func:`query` wrote them."""
    return dict(parse_qsl(query))


def _site(url: str) -> str:
    """The name of the website where an activity can be seen: https://www.instagram.com/p/1 → instagram."""
    names = (urlsplit(url).hostname or "").removeprefix("www.").split(".")
    return word(names[-2]) if len(names) > 1 else ""


def query(values: Mapping[str, str]) -> str:
    return urlencode(values)


def joined(url: str, added: str) -> str:
    """``url`` with the query ``added``; a field that the address has of its own stays as it is."""
    parts = urlsplit(url)
    own = {name for name, _ in parse_qsl(parts.query, keep_blank_values=True)}
    more = urlencode([(name, value) for name, value in parse_qsl(added) if name not in own])
    return parts._replace(query="&".join(filter(None, (parts.query, more)))).geturl()


def breaches(values: Mapping[str, str]) -> list[str]:
    """Names of the UTM fields that break the rule, a missing source or medium included, or no word of a campaign."""
    wrong = [name for name, value in values.items() if name in FIELDS and not _is_written_by_rule(value)]
    wrong += [name for name in ("utm_source", "utm_medium") if not values.get(name)]
    if values.get("utm_medium", "") not in ("", *MEDIUM.values()):
        wrong.append("utm_medium")
    if not values.get("utm_campaign") and not values.get("utm_id"):
        wrong.append("utm_campaign")
    return sorted(set(wrong))


def _is_written_by_rule(value: str) -> bool:
    return value == value.casefold() and not any(sign in value for sign in SPLITTING)
