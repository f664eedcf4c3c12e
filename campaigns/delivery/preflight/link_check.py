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

from campaigns.content.rendering.links import to_ascii_url
from campaigns.i18n import N_

TIMEOUT = 5.0
"""Timeout of one request, in seconds."""
MAX_REDIRECTS = 5
MAX_LINKS = 60
"""Maximum number of links per check."""
_CONCURRENCY = 8
_USER_AGENT = "Mozilla/5.0 (compatible; Kampania link check)"
_NAT64 = ip_network("64:ff9b::/96")
_HEAD_UNSUPPORTED = (403, 404, 405, 501)
"""Replies of servers that do not support HEAD; the link is then requested with GET."""


@dataclass(frozen=True, slots=True)
class LinkStatus:
    """Result of one link. ``status`` is the final HTTP status; None without a reply: ``message`` is the reason."""

    url: str
    status: int | None = None
    message: str = ""
    params: tuple[tuple[str, str], ...] = ()
    final_url: str = ""
    """The last URL, when there were redirects."""

    @property
    def is_ok(self) -> bool:
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
    ip = ip_address(address)
    if ip in _NAT64:
        return False  # NAT64 reaches the embedded IPv4 address, whatever that is.
    embedded = getattr(ip, "ipv4_mapped", None) or getattr(ip, "sixtofour", None)
    return ip.is_global and not ip.is_multicast and (embedded is None or embedded.is_global)


@dataclass(frozen=True, slots=True)
class LinkChecker:
    """Checker of links. ``lookup``, ``is_allowed`` and ``timeout`` (seconds) are replaceable for tests."""

    lookup: Lookup = lookup
    is_allowed: Callable[[str], bool] = is_public
    timeout: float = TIMEOUT

    def check_all(self, urls: Sequence[str]) -> list[LinkStatus]:
        """Check the distinct ``urls``, at most MAX_LINKS, eight at a time, in their order. Slow ones get no status."""
        unique_urls = list(dict.fromkeys(urls))[:MAX_LINKS]
        pool = ThreadPoolExecutor(_CONCURRENCY, thread_name_prefix="links")
        futures = [pool.submit(self.check_one, url) for url in unique_urls]
        rounds = -(-len(unique_urls) // _CONCURRENCY)
        wait(futures, timeout=rounds * self.timeout * 2)
        pool.shutdown(wait=False, cancel_futures=True)
        return [
            future.result() if future.done() and not future.cancelled() else LinkStatus(url, message=_NO_REPLY)
            for url, future in zip(unique_urls, futures, strict=True)
        ]

    def check_one(self, url: str) -> LinkStatus:
        """Check one link, following up to five redirects."""
        current_url = url
        try:
            for _ in range(MAX_REDIRECTS + 1):
                status, location = self._request_with_fallback(current_url)
                if not location:
                    return LinkStatus(url, status, final_url=current_url if current_url != url else "")
                current_url = urljoin(current_url, location)
        except LinkRefused as error:
            return LinkStatus(url, message=error.args[0], final_url=current_url if current_url != url else "")
        except (OSError, http.client.HTTPException, ValueError):
            return LinkStatus(url, message=_NO_REPLY, final_url=current_url if current_url != url else "")
        return LinkStatus(
            url, message=N_("More than five redirects: a mail program may give up."), final_url=current_url
        )

    def _request_with_fallback(self, url: str) -> tuple[int, str]:
        status, location = self._request("HEAD", url)
        return self._request("GET", url) if status in _HEAD_UNSUPPORTED else (status, location)

    def _request(self, method: str, url: str) -> tuple[int, str]:
        """(HTTP status, Location of a redirect or ''). Raises LinkRefused, OSError, HTTPException or ValueError."""
        parts = urlsplit(to_ascii_url(url))
        host = parts.hostname or ""
        if parts.scheme not in ("http", "https") or not host or parts.username is not None:
            raise LinkRefused(N_("It leads to something that is no web address."))
        port = parts.port or (443 if parts.scheme == "https" else 80)
        address = self._resolve(host, port)
        connection = http.client.HTTPConnection(host, port)
        tcp_socket = socket.create_connection((address, port), timeout=self.timeout)
        # The socket's timeout restarts with each byte; the timer limits the whole request.
        deadline = Timer(self.timeout, _shut_down, [tcp_socket])
        deadline.daemon = True
        deadline.start()
        try:
            is_https = parts.scheme == "https"
            connection.sock = (
                ssl.create_default_context().wrap_socket(tcp_socket, server_hostname=host) if is_https else tcp_socket
            )
            target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
            connection.request(
                method, target, headers={"User-Agent": _USER_AGENT, "Accept": "*/*", "Connection": "close"}
            )
            response = connection.getresponse()
            location = response.getheader("Location", "") if 300 <= response.status < 400 else ""
            return response.status, location or ""
        except ssl.SSLCertVerificationError as error:
            raise LinkRefused(N_("Its certificate does not hold.")) from error
        finally:
            deadline.cancel()
            connection.close()
            tcp_socket.close()

    def _resolve(self, host: str, port: int) -> str:
        """The first IP address of a host, all of whose addresses are public. Raises LinkRefused."""
        try:
            addresses = self.lookup(host, port)
        except OSError as error:
            raise LinkRefused(N_("The DNS does not know its host.")) from error
        if not addresses:
            raise LinkRefused(N_("The DNS does not know its host."))
        if not all(map(self.is_allowed, addresses)):
            raise LinkRefused(N_("It leads into a private network: not asked."))
        return addresses[0]


_NO_REPLY = N_("No answer within five seconds.")


def _shut_down(tcp_socket: socket.socket) -> None:
    try:
        tcp_socket.shutdown(socket.SHUT_RDWR)
    except OSError:
        pass  # Already closed.
