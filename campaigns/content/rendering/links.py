"""Link targets: validation, personalisation, and the tracked URLs that replace them in a mail."""

import re
import socket
from collections.abc import Collection, Mapping
from functools import lru_cache
from ipaddress import ip_address
from urllib.parse import quote, urlsplit

import idna
from jinja2 import Template

from campaigns import config
from campaigns.content.rendering.jinja_sandbox import URL_ENVIRONMENT, render_limited
from campaigns.errors import ValidationFailed, ValidationProblem
from campaigns.i18n import N_
from campaigns.tokens import Purpose, mint_send_token

MAX_URL_LENGTH = 2_000
_EXPRESSION = re.compile(r"\{\{.*?\}\}", re.DOTALL)
_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*:")
_ORIGIN = re.compile(r"https?://[^/?#\\]+", re.IGNORECASE)
_PRIVATE_NAMES = ("localhost", ".localhost", ".local", ".internal", ".lan", ".home.arpa", ".test", ".invalid")
# Characters that may stay unencoded in a complete URL (RFC 3986, 2.2 and 2.3), and % of existing escapes.
_SAFE_CHARACTERS = "!#$%&'()*+,/:;=?@[]~"


def tracked_url(send_id: int, number: int) -> str:
    """Return the URL that counts a click on link ``number`` and redirects to its target."""
    return f"{config.settings().tracking_url}/c/{mint_send_token(Purpose.ENGAGEMENT, send_id)}/{number}"


def pixel_url(send_id: int) -> str:
    """Return the URL of the tracking pixel, which counts an open."""
    return f"{config.settings().tracking_url}/o/{mint_send_token(Purpose.ENGAGEMENT, send_id)}"


def unsubscribe_url(send_id: int) -> str:
    """Return the URL of the unsubscribe page for this send's recipient. It is not tracked."""
    return f"{config.settings().base_url}/u/{mint_send_token(Purpose.UNSUBSCRIBE, send_id)}"


def personalise_url(url: str, fields: Mapping[str, object]) -> str:
    """Return the link target with merge fields filled in, percent-encoded.

    Scheme and host are never merged. Raises ValidationFailed when the result has a different origin.
    """
    if "{{" not in url:
        return url
    merged = render_limited(_url_template(url), fields)
    if _ORIGIN.match(merged) is None or url_origin(merged) != url_origin(url):
        raise ValidationFailed(ValidationProblem(N_("A merge field must not change where a link leads.")))
    return merged


@lru_cache(2_000)
def _url_template(url: str) -> Template:
    return URL_ENVIRONMENT.from_string(url)


def url_origin(url: str) -> str:
    """Return scheme, host and port, lower-cased; merge fields can only follow them."""
    found = _ORIGIN.match(url)
    return found[0].lower() if found else ""


def own_hosts(declared: Collection[str]) -> frozenset[str]:
    """Return the installation's hosts and the declared ones: links to them are valid even on private networks."""
    settings = config.settings()
    installation_hosts = (urlsplit(settings.base_url).hostname, urlsplit(settings.tracking_url).hostname)
    return frozenset(host for host in installation_hosts if host) | frozenset(host.lower() for host in declared)


def url_problem(url: str, hosts: Collection[str]) -> str | None:
    """Return why ``url`` cannot be a link target; None when it can. Its entities must be decoded already."""
    if not url:
        return N_("This link has no address.")
    literal = _EXPRESSION.sub("", url)
    if "{%" in literal or "{#" in literal:
        return N_("Conditions are not possible inside an address; put them around the whole link.")
    if any(ord(character) <= 32 or ord(character) == 127 for character in literal) or "\\" in literal:
        return N_("A link's address cannot contain blanks, line breaks or backslashes.")
    if url.startswith("{{"):
        return N_("Scheme and host of a link cannot be merged; write https://… before the merge field.")
    scheme = _SCHEME.match(url)
    if scheme is None:
        return N_("A link needs a whole address; begin it with https://.")
    if scheme[0].lower() not in ("http:", "https:"):
        return N_("Links lead to http:// or https:// addresses only.")
    if len(url) > MAX_URL_LENGTH:
        return N_("This address is too long.")
    return _host_problem(url, hosts)


def _host_problem(url: str, hosts: Collection[str]) -> str | None:
    authority = url_origin(url).partition("://")[2]
    if not authority or url[len(url_origin(url)) :][:1] not in ("", "/", "?", "#"):
        return N_("This address has no host.")
    if "{{" in authority:
        return N_("Scheme and host of a link cannot be merged; write https://… before the merge field.")
    if "@" in authority:
        return N_("An address with a user name before its host is not possible.")
    try:
        parts = urlsplit(f"https://{authority}")
        host = (parts.hostname or "").rstrip(".")
        _ = parts.port
        ascii_host = host if _is_ip_address(host) else idna.encode(host, uts46=True).decode()
    except (ValueError, UnicodeError):  # idna's errors are subclasses of UnicodeError
        return N_("The host of this address cannot be read.")
    if ascii_host in hosts:
        return None
    if _is_private(ascii_host):
        return N_("This address leads into a private network, where recipients cannot follow.")
    return None


def _is_ip_address(host: str) -> bool:
    try:
        ip_address(host)
    except ValueError:
        return False
    return True


def _is_private(host: str) -> bool:
    try:
        return not ip_address(host).is_global
    except ValueError:
        pass
    try:
        # Resolvers also accept 2130706433, 0x7f.1 and 127.1 as IPv4 addresses.
        return not ip_address(socket.inet_aton(host)).is_global
    except OSError:
        return "." not in host or host.endswith(_PRIVATE_NAMES)


def to_ascii_url(url: str) -> str:
    """Return ``url`` in ASCII, as a Location header requires: host by IDNA, the rest percent-encoded."""
    start = url_origin(url)
    scheme, _, authority = start.partition("://")
    host, colon, port = authority.partition(":")
    if not authority.isascii():
        authority = idna.encode(host, uts46=True).decode() + colon + port
    rest, position = [], len(start)
    for expression in _EXPRESSION.finditer(url):
        rest += [quote(url[position : expression.start()], safe=_SAFE_CHARACTERS), expression[0]]
        position = expression.end()
    rest.append(quote(url[position:], safe=_SAFE_CHARACTERS))
    return f"{scheme}://{authority}{''.join(rest)}"
