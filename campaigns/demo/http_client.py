"""Minimal HTTP client of the simulated audience: redirects within one origin, links, images and forms."""

import http.client
import re
import threading
from dataclasses import dataclass, field
from html import unescape
from html.parser import HTMLParser
from urllib.parse import urlencode, urljoin, urlsplit

_REDIRECTS = (301, 302, 303, 307, 308)
_MAX_REDIRECTS = 5
_FORM_CONTENT_TYPE = "application/x-www-form-urlencoded"
# A regular expression suffices for the regular HTML of our mails and needs less CPU than an HTML parser.
_LINK = re.compile(r"<a\b[^>]*?\bhref=\"([^\"]+)\"", re.IGNORECASE)
_IMAGE = re.compile(r"<img\b[^>]*?\bsrc=\"([^\"]+)\"", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class HttpPage:
    """A response; ``url`` is the final URL after redirects."""

    url: str
    status: int
    body: str


class Browser:
    """HTTP client for one origin; redirects to other origins are not followed. Safe to share between threads."""

    def __init__(self, origin: str) -> None:
        self._origin = urlsplit(origin)
        self._connections = threading.local()

    def fetch(
        self,
        url: str,
        headers: dict[str, str],
        method: str = "GET",
        fields: dict[str, str] | None = None,
        body: bytes | None = None,
    ) -> HttpPage:
        """Send a request and follow redirects within the origin. ``fields`` are form-encoded, ``body`` is raw."""
        if fields is not None:
            body, headers = urlencode(fields).encode(), {"Content-Type": _FORM_CONTENT_TYPE, **headers}
        for _ in range(_MAX_REDIRECTS):
            status, location, text = self._request(method, url, headers, body)
            if status not in _REDIRECTS or not location:
                return HttpPage(url, status, text)
            target = urljoin(url, location)
            if not self.is_same_origin(target) or method == "HEAD":
                return HttpPage(target, status, "")
            url, method, body = target, "GET", None
        return HttpPage(url, status, text)

    def is_same_origin(self, url: str) -> bool:
        return urlsplit(url).netloc == self._origin.netloc

    def _request(
        self, method: str, url: str, headers: dict[str, str], body: bytes | None
    ) -> tuple[int, str | None, str]:
        parts = urlsplit(url)
        path = parts.path + (f"?{parts.query}" if parts.query else "")
        request_headers = {"Host": self._origin.netloc, **headers}
        for attempt in (1, 2):
            connection: http.client.HTTPConnection | None = getattr(self._connections, "open", None)
            if connection is None:
                host, port = self._origin.hostname or "127.0.0.1", self._origin.port or 80
                connection = self._connections.open = http.client.HTTPConnection(host, port, timeout=20)
            try:
                connection.request(method, path, body=body, headers=request_headers)
                response = connection.getresponse()
                return response.status, response.headers["Location"], response.read().decode("utf-8", "replace")
            except (http.client.HTTPException, OSError):
                connection.close()
                self._connections.open = None  # The server may close an idle keep-alive connection.
                if attempt == 2:
                    raise
        raise AssertionError("unreachable")


@dataclass(slots=True)
class HtmlForm:
    """A form on a page: its target URL, its fields with their values, and the names of its checkboxes."""

    action: str
    fields: dict[str, str] = field(default_factory=dict)
    checkboxes: list[str] = field(default_factory=list)


class _FormParser(HTMLParser):
    def __init__(self, url: str) -> None:
        super().__init__()
        self._url = url
        self.forms: list[HtmlForm] = []

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        attribute_values = {name: value or "" for name, value in attributes}
        if tag == "form" and attribute_values.get("method", "").lower() == "post":
            self.forms.append(HtmlForm(urljoin(self._url, attribute_values.get("action") or self._url)))
        elif tag in ("input", "textarea", "select") and self.forms and (name := attribute_values.get("name")):
            kind = attribute_values.get("type", "text")
            if kind in ("checkbox", "radio"):
                self.forms[-1].checkboxes.append(name)
            elif kind not in ("submit", "button"):
                self.forms[-1].fields[name] = attribute_values.get("value", "")


def first_post_form(page: HttpPage) -> HtmlForm | None:
    """Return the page's first form with method POST, or None."""
    parser = _FormParser(page.url)
    parser.feed(page.body)
    return parser.forms[0] if parser.forms else None


def links_and_images(html: str) -> tuple[list[str], list[str]]:
    """Return the URLs of (links, images) of an HTML document, in order."""
    return [unescape(url) for url in _LINK.findall(html)], [unescape(url) for url in _IMAGE.findall(html)]
