"""Page script reports: parsing and validation of one spool record.

Reports are untrusted input: an invalid field becomes an empty value, an invalid report becomes None.
"""

import json
import re
from dataclasses import dataclass
from functools import lru_cache
from hashlib import blake2b
from typing import Any
from urllib.parse import parse_qsl, urlsplit

from babel.core import get_global

from tracking.bots import rules
from tracking.bots.gateways import gateway_of
from tracking.channels.channel_groups import CLICK_IDS, TrafficParameters, arrival_of, host_of
from tracking.collector.dead_letters import place
from tracking.endpoints import link_targets
from tracking.models.events import HitKind, TrafficLabel
from tracking.models.visits import Device
from tracking.spool.record_codec import Hit, RequestFlag

EVENT_NAME = re.compile(r"[\w.: -]{1,80}")
OUTBOUND = "outbound"
"""Name of the custom event for a link to a foreign host."""
LONGEST_HOST, LONGEST_PATH = 100, 300
_FORM = re.compile(r"[0-9a-f]{32}")
_KEPT = re.compile(r"[\w.:/-]{1,60}")
_MOST_PARAMETERS = 50
_KINDS = ("v", "h", "e", "o")
_EMAIL = TrafficParameters(source="email", medium="email")


@dataclass(frozen=True, slots=True)
class PageReport:
    """The validated fields of one report."""

    id: int
    at: int  # microseconds since 1970, UTC
    kind: str
    untracked: bool
    """Whether the browser opts out of tracking."""
    bare: bool
    """Whether it comes from a form embedded in a foreign page: it then reports no page view."""
    send_id: int
    """The send whose link brought the visitor; 0 for none."""
    network: int
    agent: bytes
    site: str
    path: str
    page: int
    active: int
    scroll: int
    arrival: TrafficParameters
    says_arrival: bool
    """Whether the URL itself states the source, by UTM parameters, click id or visit token."""
    referrer_host: str
    """Host of the referring page; "" for an own host."""
    from_own_page: bool
    led_from: bytes
    """Digest of the referring page when it is on an own host; empty otherwise."""
    stable: str
    """Visitor id that the visitor consented to; "" for none."""
    form: str
    country: str
    label: int
    name: str
    """Name of the custom event; "" for other reports."""
    event: dict[str, Any]

    @property
    def address(self) -> str:
        return self.site + self.path

    @property
    def web_page(self) -> bytes:
        return digest_of(self.site, self.path)

    @property
    def arrival_digest(self) -> bytes:
        """Key of :class:`~tracking.models.visits.TrafficSource`."""
        a = self.arrival
        return digest_of(
            a.source, a.medium, a.campaign, a.term, a.content, a.utm_id, self.referrer_host if not self.send_id else ""
        )

    @property
    def device(self) -> int:
        return _device(self.agent)

    @property
    def browser(self) -> str:
        return _browser(self.agent)


def digest_of(*words: str) -> bytes:
    return blake2b("\0".join(words).encode("utf-8", "replace"), digest_size=16).digest()


def read(spool_id: int, offset: int, hit: Hit) -> PageReport | None:
    """The report in a spool record; None when it is invalid or comes from a foreign host."""
    agent, _, rest = hit.user_agent.partition(b"\n")
    origin, _, body = rest.partition(b"\n")
    try:
        said = json.loads(body)
        if not _plausible(said):
            return None
        parts = urlsplit(_text(said, "u", 2_000))
        referrer = _text(said, "r", 2_000)
        bare = bool(said.get("b"))
        came_from = urlsplit(referrer)
        host = _site(came_from if bare else parts)
    except (ValueError, RecursionError, AttributeError, TypeError):
        return None
    hosts = link_targets.destinations().site().hosts
    if not (host in hosts or (came_from if bare else parts).netloc.lower() in hosts) or (
        not bare and parts.netloc.lower() != _host(origin)
    ):
        return None
    untracked = bool(hit.flags & RequestFlag.UNTRACKED)
    query = {name: value for name, value in _query(parts.query) if value}
    referrer_host = "" if bare else host_of(referrer)
    own = referrer_host in hosts
    arrival = arrival_of(query, referrer, hosts)
    says_arrival = bool(query.keys() & CLICK_IDS) or any(name.startswith("utm_") for name in query)
    if hit.target and not says_arrival:
        arrival, says_arrival = _EMAIL, True
    kind = str(said.get("t"))
    return PageReport(
        id=place(spool_id, offset),
        at=hit.at,
        kind=kind,
        untracked=untracked,
        bare=bare,
        send_id=0 if untracked else hit.target,
        network=hit.network,
        agent=agent,
        site=host,
        path=printable(parts.path or "/", LONGEST_PATH),
        page=_number(said.get("p"), (1 << 31) - 1),
        active=_number(said.get("a"), 86_400),
        scroll=_number(said.get("s"), 100),
        arrival=arrival,
        says_arrival=says_arrival,
        referrer_host="" if own else printable(referrer_host, LONGEST_HOST),
        from_own_page=own,
        led_from=_page(came_from) if own else b"",
        stable="" if untracked else _matching(_KEPT, said.get("i")),
        form="" if untracked else _matching(_FORM, said.get("f")),
        country=_country(said),
        label=_label(hit.flags & ~RequestFlag.UNTRACKED, agent, hit.network),
        name=_name(kind, said),
        event=said if kind in ("e", "o") else {},
    )


def _plausible(said: Any) -> bool:
    """Whether the fields that every report has are present and valid."""
    if not isinstance(said, dict) or said.get("t") not in _KINDS:
        return False
    page, address = said.get("p"), said.get("u")
    if type(page) is not int or not 0 < page < 1 << 31 or not isinstance(address, str):
        return False
    return address.startswith(("https://", "http://"))


def _page(parts: Any) -> bytes:
    return digest_of(_site(parts), printable(parts.path or "/", LONGEST_PATH))


def _site(parts: Any) -> str:
    return str(parts.hostname or "").strip(".")[:LONGEST_HOST]


@lru_cache(maxsize=4_096)
def _host(origin: bytes) -> str:
    return urlsplit(origin.decode("latin-1")).netloc.lower()


def _query(text: str) -> list[tuple[str, str]]:
    try:
        return parse_qsl(text, max_num_fields=_MOST_PARAMETERS)
    except ValueError:
        return []


def _text(said: dict[str, Any], name: str, longest: int) -> str:
    value = said.get(name)
    return value[:longest] if isinstance(value, str) else ""


def _matching(pattern: re.Pattern[str], value: object) -> str:
    return value if isinstance(value, str) and pattern.fullmatch(value) else ""


def printable(text: str, longest: int) -> str:
    """The text with unprintable characters replaced, safe for both databases and for pages, cut to ``max_length``
    characters.
    """
    return "".join(sign if sign.isprintable() else "�" for sign in text)[:longest]


def _number(value: object, most: int) -> int:
    """A count from 0 to ``maximum``; 0 for any other value."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not value > 0:
        return 0
    return int(min(value, most))


def _name(kind: str, said: dict[str, Any]) -> str:
    if kind == "o":
        return OUTBOUND
    return _matching(EVENT_NAME, said.get("n")) if kind == "e" else ""


@lru_cache(maxsize=8_192)
def _label(flags: int, agent: bytes, network: int) -> int:
    """The traffic label of a report. Running the script indicates a person, unless the user agent is a program's or the
    network belongs to a mail gateway.
    """
    first = rules.first_label(rules.facts(HitKind.CLICK, flags, agent))
    if first is TrafficLabel.SETTLING:
        first = TrafficLabel.SCANNER if network and gateway_of(network) else TrafficLabel.HUMAN
    return int(first)


def _country(said: dict[str, Any]) -> str:
    """The guessed country code: that of the time zone, else that of the language; "" for none."""
    return _country_of(_text(said, "z", 60), _text(said, "l", 20))


@lru_cache(maxsize=4_096)
def _country_of(zone: str, language: str) -> str:
    zone = get_global("zone_aliases").get(zone, zone)
    country = get_global("zone_territories").get(zone, "")
    if not country or country == "001":
        country = next((part for part in language.upper().split("-")[1:] if len(part) == 2 and part.isalpha()), "")
    return str(country) if len(country) == 2 and country.isascii() else ""


_BROWSERS = (
    (b"Edg", "Edge"),
    (b"OPR/", "Opera"),
    (b"SamsungBrowser", "Samsung Internet"),
    (b"YaBrowser", "Yandex"),
    (b"Firefox/", "Firefox"),
    (b"FxiOS", "Firefox"),
    (b"CriOS", "Chrome"),
    (b"Chrome/", "Chrome"),
    (b"Safari/", "Safari"),
    (b"AppleWebKit", "WebKit"),
)


@lru_cache(maxsize=8_192)
def _browser(agent: bytes) -> str:
    return next((name for sign, name in _BROWSERS if sign in agent), "")


@lru_cache(maxsize=8_192)
def _device(agent: bytes) -> int:
    if b"iPad" in agent or b"Tablet" in agent or (b"Android" in agent and b"Mobile" not in agent):
        return Device.TABLET
    if b"iPhone" in agent or b"Mobi" in agent:
        return Device.PHONE
    desktop = (b"Windows NT", b"Macintosh", b"X11", b"CrOS")
    return Device.DESKTOP if any(sign in agent for sign in desktop) else Device.UNKNOWN
