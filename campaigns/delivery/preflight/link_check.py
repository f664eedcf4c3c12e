"""HTTP check of a mail's links, protected against server-side request forgery.

It runs on request only and outside of any transaction. Links are user input, so they must not reach the internal
network: each host is resolved once and refused unless all its addresses are public; the connection goes to the resolved
address (no DNS rebinding); every redirect is checked the same way.
"""

import http.client
import socket
import ssl
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from dataclasses import dataclass
from ipaddress import ip_address, ip_network
from threading import Timer
from urllib.parse import urljoin, urlsplit

from campaigns.content.rendering.links import whole
from campaigns.i18n import N_

PATIENCE = 5.0
"""Timeout of one request, in seconds."""
REDIRECTS = 5
MOST = 60
"""Maximum number of links per check."""
_AT_ONCE = 8
_AGENT = "Mozilla/5.0 (compatible; Kampania link check)"
_NAT64 = ip_network("64:ff9b::/96")
_NO_HEAD = (403, 404, 405, 501)
"""Replies of servers that do not support HEAD; the link is then requested with GET."""


@dataclass(frozen=True, slots=True)
class LinkStatus:
    """Result of one link. ``status`` is the final HTTP status; None without a reply: ``message`` is the reason."""

    url: str
    status: int | None = None
    message: str = ""
    params: tuple[tuple[str, str], ...] = ()
    end: str = ""
    """The last URL, when there were redirects."""

    @property
    def good(self) -> bool:
        return self.status is not None and self.status < 400


class LinkRefused(Exception):
    """The request was not made or the certificate is invalid. The argument is a msgid."""


Lookup = Callable[[str, int], Sequence[str]]
"""(host, port) → IP addresses; raises OSError."""


def lookup(host: str, port: int) -> Sequence[str]:
    """IP addresses of a host from the system's resolver, without duplicates. Raises OSError."""
    return list(dict.fromkeys(str(each[4][0]) for each in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)))


def is_public(address: str) -> bool:
    """Whether an IP address is globally reachable. IPv4 addresses embedded in IPv6 (mapped, 6to4) are checked too."""
    found = ip_address(address)
    if found in _NAT64:
        return False  # NAT64 reaches the embedded IPv4 address, whatever that is.
    inner = getattr(found, "ipv4_mapped", None) or getattr(found, "sixtofour", None)
    return found.is_global and not found.is_multicast and (inner is None or inner.is_global)


@dataclass(frozen=True, slots=True)
class LinkChecker:
    """Checker of links. ``lookup``, ``is_allowed`` and ``timeout`` (seconds) are replaceable for tests."""

    lookup: Lookup = lookup
    public: Callable[[str], bool] = is_public
    patience: float = PATIENCE

    def all(self, urls: Sequence[str]) -> list[LinkStatus]:
        """Check the distinct ``urls``, at most MAX_LINKS, eight at a time, in their order. Slow ones get no status."""
        wanted = list(dict.fromkeys(urls))[:MOST]
        pool = ThreadPoolExecutor(_AT_ONCE, thread_name_prefix="links")
        futures = [pool.submit(self.one, url) for url in wanted]
        rounds = -(-len(wanted) // _AT_ONCE)
        wait(futures, timeout=rounds * self.patience * 2)
        pool.shutdown(wait=False, cancel_futures=True)
        return [
            future.result() if future.done() and not future.cancelled() else LinkStatus(url, message=_SILENT)
            for url, future in zip(wanted, futures, strict=True)
        ]

    def one(self, url: str) -> LinkStatus:
        """Check one link, following up to five redirects."""
        place = url
        try:
            for _ in range(REDIRECTS + 1):
                status, further = self._asked(place)
                if not further:
                    return LinkStatus(url, status, end=place if place != url else "")
                place = urljoin(place, further)
        except LinkRefused as error:
            return LinkStatus(url, message=error.args[0], end=place if place != url else "")
        except (OSError, http.client.HTTPException, ValueError):
            return LinkStatus(url, message=_SILENT, end=place if place != url else "")
        return LinkStatus(url, message=N_("More than five redirects: a mail program may give up."), end=place)

    def _asked(self, url: str) -> tuple[int, str]:
        status, further = self._request("HEAD", url)
        return self._request("GET", url) if status in _NO_HEAD else (status, further)

    def _request(self, method: str, url: str) -> tuple[int, str]:
        """(HTTP status, Location of a redirect or ''). Raises LinkRefused, OSError, HTTPException or ValueError."""
        parts = urlsplit(whole(url))
        host = parts.hostname or ""
        if parts.scheme not in ("http", "https") or not host or parts.username is not None:
            raise LinkRefused(N_("It leads to something that is no web address."))
        port = parts.port or (443 if parts.scheme == "https" else 80)
        address = self._address(host, port)
        connection = http.client.HTTPConnection(host, port)
        plain = socket.create_connection((address, port), timeout=self.patience)
        # The socket's timeout restarts with each byte; the timer limits the whole request.
        guard = Timer(self.patience, _cut, [plain])
        guard.daemon = True
        guard.start()
        try:
            secure = parts.scheme == "https"
            connection.sock = ssl.create_default_context().wrap_socket(plain, server_hostname=host) if secure else plain
            target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
            connection.request(method, target, headers={"User-Agent": _AGENT, "Accept": "*/*", "Connection": "close"})
            answer = connection.getresponse()
            further = answer.getheader("Location", "") if 300 <= answer.status < 400 else ""
            return answer.status, further or ""
        except ssl.SSLCertVerificationError as error:
            raise LinkRefused(N_("Its certificate does not hold.")) from error
        finally:
            guard.cancel()
            connection.close()
            plain.close()

    def _address(self, host: str, port: int) -> str:
        """The first IP address of a host, all of whose addresses are public. Raises LinkRefused."""
        try:
            found = self.lookup(host, port)
        except OSError as error:
            raise LinkRefused(N_("The DNS does not know its host.")) from error
        if not found:
            raise LinkRefused(N_("The DNS does not know its host."))
        if not all(map(self.public, found)):
            raise LinkRefused(N_("It leads into a private network: not asked."))
        return found[0]


_SILENT = N_("No answer within five seconds.")


def _cut(plain: socket.socket) -> None:
    try:
        plain.shutdown(socket.SHUT_RDWR)
    except OSError:
        pass  # Already closed.
