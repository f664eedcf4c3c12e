"""UTM naming rule for links of an activity.

Used by the link builders and by the check of collected visits. Values are lower case with words joined by one hyphen;
each channel has one ``utm_medium``, chosen so that Google Analytics' default channel groups recognise it.
"""

import re
import unicodedata
from collections.abc import Mapping
from urllib.parse import parse_qsl, urlencode, urlsplit

from campaigns.planning.models import Activity, Channel

FIELDS = ("utm_source", "utm_medium", "utm_campaign", "utm_id", "utm_content")
FORBIDDEN_SEPARATORS = (" ", "_")
"""Separators that the rule replaces by a hyphen; mixed spellings of one name would split its visits."""
MAX_VALUE_LENGTH = 60
"""Maximum length of one value in characters."""

MEDIUM_BY_CHANNEL: Mapping[Channel, str] = {
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
"""The only allowed values of ``utm_medium``, by channel."""


def slugify(text: str) -> str:
    """``text`` as a UTM value: "Spring Tea 2026!" → "spring-tea-2026". Letters of any script are kept."""
    normalised = unicodedata.normalize("NFKC", text).casefold()
    return re.sub(r"[\W_]+", "-", normalised).strip("-")[:MAX_VALUE_LENGTH].rstrip("-")


def build_parameters(activity: Activity, label: str) -> dict[str, str]:
    """The UTM parameters of a link labelled ``label`` in ``activity``; empty values are left out."""
    values = {
        "utm_source": source(activity.channel, activity.url),
        "utm_medium": MEDIUM_BY_CHANNEL[activity.channel],
        "utm_campaign": slugify(activity.campaign.name),
        "utm_id": str(activity.campaign_id),
        "utm_content": slugify(label),
    }
    return {name: value for name, value in values.items() if value}


def source(channel: Channel, url: str) -> str:
    """The ``utm_source`` of an activity: the site name of ``url``, else the channel."""
    return _site_name(url) or channel.value


def parse_query(query: str) -> dict[str, str]:
    """The inverse of :func:`encode_query`."""
    return dict(parse_qsl(query))


def _site_name(url: str) -> str:
    """The second-level domain name of ``url``: https://www.instagram.com/p/1 → instagram; '' without one."""
    names = (urlsplit(url).hostname or "").removeprefix("www.").split(".")
    return slugify(names[-2]) if len(names) > 1 else ""


def encode_query(values: Mapping[str, str]) -> str:
    return urlencode(values)


def append_query(url: str, added: str) -> str:
    """``url`` with the query string ``added`` appended; parameters that ``url`` already has are not overwritten."""
    parts = urlsplit(url)
    own = {name for name, _ in parse_qsl(parts.query, keep_blank_values=True)}
    missing = urlencode([(name, value) for name, value in parse_qsl(added) if name not in own])
    return parts._replace(query="&".join(filter(None, (parts.query, missing)))).geturl()


def rule_violations(values: Mapping[str, str]) -> list[str]:
    """Sorted names of the UTM parameters that violate the rule.

    A missing ``utm_source`` or ``utm_medium`` counts, an unknown medium, and ``utm_campaign`` when neither it nor
    ``utm_id`` is given.
    """
    violations = [name for name, value in values.items() if name in FIELDS and not _follows_rule(value)]
    violations += [name for name in ("utm_source", "utm_medium") if not values.get(name)]
    if values.get("utm_medium", "") not in ("", *MEDIUM_BY_CHANNEL.values()):
        violations.append("utm_medium")
    if not values.get("utm_campaign") and not values.get("utm_id"):
        violations.append("utm_campaign")
    return sorted(set(violations))


def _follows_rule(value: str) -> bool:
    return value == value.casefold() and not any(sign in value for sign in FORBIDDEN_SEPARATORS)
