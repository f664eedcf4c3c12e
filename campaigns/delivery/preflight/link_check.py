"""Whether what a mail's links lead to answers. Asked by a button only, and outside of any transaction.

A link is whatever a coordinator wrote, so this must not become a way into our own network: each
address is looked up once, refused unless it belongs to the public internet, and connected to as it
was looked up; every redirect is looked at again.
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
"""Seconds for one request."""
REDIRECTS = 5
MOST = 60
"""Links looked at in one go."""
_AT_ONCE = 8
_AGENT = "Mozilla/5.0 (compatible; Kampania link check)"
_NAT64 = ip_network("64:ff9b::/96")
_NO_HEAD = (403, 404, 405, 501)
"""What servers that know no HEAD answer to it."""


@dataclass(frozen=True, slots=True)
class LinkStatus:
    """What a link led to. Without a ``status`` nothing answered, and ``message`` says why."""

    url: str
    status: int | None = None
    message: str = ""
    params: tuple[tuple[str, str], ...] = ()
    end: str = ""
    """Where the redirects ended, if there were any."""

    @property
    def good(self) -> bool:
        return self.status is not None and self.status < 400


class LinkRefused(Exception):
    """The request was not made, or had no answer. Its argument is a msgid."""


Lookup = Callable[[str, int], Sequence[str]]
"""The addresses of a host; raises OSError."""


def lookup(host: str, port: int) -> Sequence[str]:
    return list(dict.fromkeys(str(each[4][0]) for each in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)))


def is_public(address: str) -> bool:
    """Whether an address is anybody's to reach; one inside IPv6 counts as itself."""
    found = ip_address(address)
    if found in _NAT64:
        return False  # Leads to whatever IPv4 address stands in it.
    inner = getattr(found, "ipv4_mapped", None) or getattr(found, "sixtofour", None)
    return found.is_global and not found.is_multicast and (inner is None or inner.is_global)


@dataclass(frozen=True, slots=True)
class LinkChecker:
    """How links are asked; a test brings its own name server and its own idea of what is public."""

    lookup: Lookup = lookup
    public: Callable[[str], bool] = is_public
    patience: float = PATIENCE

    def all(self, urls: Sequence[str]) -> list[LinkStatus]:
        """Ask each of them, several at once."""
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
        """Follow one link to its end."""
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
        """Status, and where it redirects to."""
        parts = urlsplit(whole(url))
        host = parts.hostname or ""
        if parts.scheme not in ("http", "https") or not host or parts.username is not None:
            raise LinkRefused(N_("It leads to something that is no web address."))
        port = parts.port or (443 if parts.scheme == "https" else 80)
        address = self._address(host, port)
        connection = http.client.HTTPConnection(host, port)
        plain = socket.create_connection((address, port), timeout=self.patience)
        # A server that sends a byte now and then never runs into a socket's own timeout.
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
        pass  # It is closed already.
