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
from tracking.channels.channel_groups import CLICK_IDS, TrafficParameters, host_of, parse_traffic_parameters
from tracking.collector.dead_letters import event_id_at
from tracking.endpoints import link_targets
from tracking.models.events import HitKind, TrafficLabel
from tracking.models.visits import Device
from tracking.spool.record_codec import Hit, RequestFlag

EVENT_NAME = re.compile(r"[\w.: -]{1,80}")
OUTBOUND = "outbound"
"""Name of the custom event for a link to a foreign host."""
MAX_HOST_LENGTH, MAX_PATH_LENGTH = 100, 300
_FORM_KEY = re.compile(r"[0-9a-f]{32}")
_VISITOR_ID = re.compile(r"[\w.:/-]{1,60}")
_MAX_QUERY_FIELDS = 50
_REPORT_KINDS = ("v", "h", "e", "o")
_EMAIL_ARRIVAL = TrafficParameters(source="email", medium="email")


@dataclass(frozen=True, slots=True)
class PageReport:
    """The validated fields of one report."""

    id: int
    at: int  # microseconds since 1970, UTC
    kind: str
    untracked: bool
    """Whether the browser opts out of tracking."""
    is_embedded_form: bool
    """Whether it comes from a form embedded in a foreign page: it then reports no page view."""
    send_id: int
    """The send whose link brought the visitor; 0 for none."""
    network: int
    user_agent: bytes
    host: str
    path: str
    page: int
    active_seconds: int
    scroll_percent: int
    arrival: TrafficParameters
    has_explicit_source: bool
    """Whether the URL itself states the source, by UTM parameters, click id or visit token."""
    referrer_host: str
    """Host of the referring page; "" for an own host."""
    is_internal_referral: bool
    referring_page: bytes
    """Digest of the referring page when it is on an own host; empty otherwise."""
    visitor_id: str
    """Visitor id that the visitor consented to; "" for none."""
    form_key: str
    country: str
    label: int
    event_name: str
    """Name of the custom event; "" for other reports."""
    event_fields: dict[str, Any]

    @property
    def address(self) -> str:
        return self.host + self.path

    @property
    def page_digest(self) -> bytes:
        return digest_of(self.host, self.path)

    @property
    def arrival_digest(self) -> bytes:
        """Key of :class:`~tracking.models.visits.TrafficSource`."""
        a = self.arrival
        return digest_of(
            a.source, a.medium, a.campaign, a.term, a.content, a.utm_id, self.referrer_host if not self.send_id else ""
        )

    @property
    def device(self) -> int:
        return _device(self.user_agent)

    @property
    def browser(self) -> str:
        return _browser(self.user_agent)


def digest_of(*parts: str) -> bytes:
    return blake2b("\0".join(parts).encode("utf-8", "replace"), digest_size=16).digest()


def parse_report(spool_id: int, offset: int, hit: Hit) -> PageReport | None:
    """The report in a spool record; None when it is invalid or comes from a foreign host."""
    user_agent, _, rest = hit.user_agent.partition(b"\n")
    origin, _, body = rest.partition(b"\n")
    try:
        report = json.loads(body)
        if not _is_valid_report(report):
            return None
        parts = urlsplit(_text_field(report, "u", 2_000))
        referrer = _text_field(report, "r", 2_000)
        is_embedded_form = bool(report.get("b"))
        referrer_parts = urlsplit(referrer)
        host = _host_of_url(referrer_parts if is_embedded_form else parts)
    except (ValueError, RecursionError, AttributeError, TypeError):
        return None
    hosts = link_targets.link_target_cache().site_config().own_hosts
    if not (host in hosts or (referrer_parts if is_embedded_form else parts).netloc.lower() in hosts) or (
        not is_embedded_form and parts.netloc.lower() != _origin_host(origin)
    ):
        return None
    untracked = bool(hit.flags & RequestFlag.UNTRACKED)
    query = {name: value for name, value in _parse_query(parts.query) if value}
    referrer_host = "" if is_embedded_form else host_of(referrer)
    is_own_referrer = referrer_host in hosts
    arrival = parse_traffic_parameters(query, referrer, hosts)
    has_explicit_source = bool(query.keys() & CLICK_IDS) or any(name.startswith("utm_") for name in query)
    if hit.target and not has_explicit_source:
        arrival, has_explicit_source = _EMAIL_ARRIVAL, True
    kind = str(report.get("t"))
    return PageReport(
        id=event_id_at(spool_id, offset),
        at=hit.at,
        kind=kind,
        untracked=untracked,
        is_embedded_form=is_embedded_form,
        send_id=0 if untracked else hit.target,
        network=hit.network,
        user_agent=user_agent,
        host=host,
        path=replace_unprintable(parts.path or "/", MAX_PATH_LENGTH),
        page=_clamped_count(report.get("p"), (1 << 31) - 1),
        active_seconds=_clamped_count(report.get("a"), 86_400),
        scroll_percent=_clamped_count(report.get("s"), 100),
        arrival=arrival,
        has_explicit_source=has_explicit_source,
        referrer_host="" if is_own_referrer else replace_unprintable(referrer_host, MAX_HOST_LENGTH),
        is_internal_referral=is_own_referrer,
        referring_page=_page_digest(referrer_parts) if is_own_referrer else b"",
        visitor_id="" if untracked else _match_or_empty(_VISITOR_ID, report.get("i")),
        form_key="" if untracked else _match_or_empty(_FORM_KEY, report.get("f")),
        country=_guess_country(report),
        label=_traffic_label(hit.flags & ~RequestFlag.UNTRACKED, user_agent, hit.network),
        event_name=_event_name(kind, report),
        event_fields=report if kind in ("e", "o") else {},
    )


def _is_valid_report(report: Any) -> bool:
    """Whether the fields that every report has are present and valid."""
    if not isinstance(report, dict) or report.get("t") not in _REPORT_KINDS:
        return False
    page, address = report.get("p"), report.get("u")
    if type(page) is not int or not 0 < page < 1 << 31 or not isinstance(address, str):
        return False
    return address.startswith(("https://", "http://"))


def _page_digest(parts: Any) -> bytes:
    return digest_of(_host_of_url(parts), replace_unprintable(parts.path or "/", MAX_PATH_LENGTH))


def _host_of_url(parts: Any) -> str:
    return str(parts.hostname or "").strip(".")[:MAX_HOST_LENGTH]


@lru_cache(maxsize=4_096)
def _origin_host(origin: bytes) -> str:
    return urlsplit(origin.decode("latin-1")).netloc.lower()


def _parse_query(text: str) -> list[tuple[str, str]]:
    try:
        return parse_qsl(text, max_num_fields=_MAX_QUERY_FIELDS)
    except ValueError:
        return []


def _text_field(report: dict[str, Any], name: str, max_length: int) -> str:
    value = report.get(name)
    return value[:max_length] if isinstance(value, str) else ""


def _match_or_empty(pattern: re.Pattern[str], value: object) -> str:
    return value if isinstance(value, str) and pattern.fullmatch(value) else ""


def replace_unprintable(text: str, max_length: int) -> str:
    """The text with unprintable characters replaced, safe for both databases and for pages, cut to ``max_length``
    characters.
    """
    return "".join(sign if sign.isprintable() else "�" for sign in text)[:max_length]


def _clamped_count(value: object, maximum: int) -> int:
    """A count from 0 to ``maximum``; 0 for any other value."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not value > 0:
        return 0
    return int(min(value, maximum))


def _event_name(kind: str, report: dict[str, Any]) -> str:
    if kind == "o":
        return OUTBOUND
    return _match_or_empty(EVENT_NAME, report.get("n")) if kind == "e" else ""


@lru_cache(maxsize=8_192)
def _traffic_label(flags: int, agent: bytes, network: int) -> int:
    """The traffic label of a report. Running the script indicates a person, unless the user agent is a program's or the
    network belongs to a mail gateway.
    """
    first = rules.first_label(rules.immediate_signals(HitKind.CLICK, flags, agent))
    if first is TrafficLabel.SETTLING:
        first = TrafficLabel.SCANNER if network and gateway_of(network) else TrafficLabel.HUMAN
    return int(first)


def _guess_country(report: dict[str, Any]) -> str:
    """The guessed country code: that of the time zone, else that of the language; "" for none."""
    return _country_of(_text_field(report, "z", 60), _text_field(report, "l", 20))


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
