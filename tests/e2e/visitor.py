"""HTTP client that behaves like a browser without JavaScript: cookies, pages, forms."""

import http.cookiejar
import secrets
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass, field
from html.parser import HTMLParser
from typing import Any


@dataclass
class WebForm:
    """A form of a page with its initial values."""

    action: str
    method: str
    multipart: bool
    values: dict[str, list[str]] = field(default_factory=dict)
    options: dict[str, dict[str, str]] = field(default_factory=dict)
    """For each choice field: label → value."""
    text: str = ""


class _PageParser(HTMLParser):
    def __init__(self, url: str) -> None:
        super().__init__(convert_charrefs=True)
        self.url, self.forms, self.text = url, [], []  # type: tuple[str, list[WebForm], list[str]]
        self.links: list[tuple[str, str]] = []
        self.images: list[str] = []
        self._form: WebForm | None = None
        self._select = self._option = self._textarea = ""
        self._link: str | None = None
        self._selected = self._in_ignored_element = False

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        attribute_values: dict[str, str] = {name: value or "" for name, value in attributes}
        if tag in ("script", "style", "template"):
            self._in_ignored_element = True
        if tag == "a":
            self._link = attribute_values.get("href")
        if tag == "img" and attribute_values.get("src"):
            self.images.append(urllib.parse.urljoin(self.url, attribute_values["src"]))
        if tag == "form":
            action = urllib.parse.urljoin(self.url, attribute_values.get("action") or self.url)
            method = attribute_values.get("method", "get").lower()
            self._form = WebForm(action, method, "multipart" in attribute_values.get("enctype", ""))
            self.forms.append(self._form)
        if self._form is None or "disabled" in attribute_values:
            return
        name, value = attribute_values.get("name", ""), attribute_values.get("value", "")
        if tag == "input" and name:
            kind = attribute_values.get("type", "text")
            if kind in ("checkbox", "radio"):
                self._form.options.setdefault(name, {})[value] = value or "on"
                if "checked" in attribute_values:
                    self._form.values.setdefault(name, []).append(value or "on")
            elif kind not in ("submit", "button", "image", "file", "reset"):
                self._form.values.setdefault(name, []).append(value)
        elif tag == "select":
            self._select = name
            self._form.options[name] = {}
            self._selected = False
        elif tag == "option" and self._select:
            self._option = value
            self._form.options[self._select][value] = value
            if "selected" in attribute_values or not self._form.values.get(self._select):
                self._form.values[self._select] = [value]
        elif tag == "textarea":
            self._textarea = name
            self._form.values[name] = [""]

    def handle_endtag(self, tag: str) -> None:
        if tag == "form":
            self._form = None
        elif tag == "select":
            self._select = ""
        elif tag == "textarea":
            self._textarea = ""
        elif tag == "a":
            self._link = None
        elif tag in ("script", "style", "template"):
            self._in_ignored_element = False

    def handle_data(self, text: str) -> None:
        if self._in_ignored_element:
            return
        self.text.append(text)
        if self._link is not None and text.strip():
            self.links.append((text.strip(), urllib.parse.urljoin(self.url, self._link)))
        if self._form is not None:
            self._form.text += text
            if self._textarea:
                self._form.values[self._textarea][0] += text.removeprefix("\r\n").removeprefix("\n")
            elif self._select and self._option and text.strip():
                self._form.options[self._select][text.strip()] = self._option


@dataclass
class VisitedPage:
    """A response: its page, status and headers."""

    url: str
    status: int
    html: str
    headers: Any

    def __post_init__(self) -> None:
        self._parser = _PageParser(self.url)
        self._parser.feed(self.html)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self._parser.text).split())

    @property
    def links(self) -> list[tuple[str, str]]:
        return self._parser.links

    def image(self, path: str) -> str:
        """Return the URL of the first image whose path starts with ``path``."""
        return next(url for url in self._parser.images if urllib.parse.urlsplit(url).path.startswith(path))

    def form(self, action: str = "", having: str = "") -> WebForm:
        """Return the first POST form whose URL ends with ``action`` and that has the field ``having``."""
        for form in self._parser.forms:
            path = urllib.parse.urlsplit(form.action).path
            if form.method == "post" and path.endswith(action) and (not having or having in form.values | form.options):
                return form
        raise AssertionError(
            f"no form {action!r} with {having!r} on {self.url}: {[f.action for f in self._parser.forms]}"
        )


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *_: Any, **__: Any) -> None:
        return None


class Visitor:
    """A browser session that keeps cookies between requests."""

    def __init__(self, base: str, **headers: str) -> None:
        self.base, self.headers = (
            base,
            {"User_Agent": "Mozilla/5.0 (X11; Linux x86_64; rv:145.0) Firefox/145.0", **headers},
        )
        jar = urllib.request.HTTPCookieProcessor(http.cookiejar.CookieJar())
        self._opener = urllib.request.build_opener(jar)
        self._no_redirect_opener = urllib.request.build_opener(jar, _NoRedirect)

    def get(self, url: str, *, follow: bool = True, method: str = "GET", **headers: str) -> VisitedPage:
        return self._request(urllib.request.Request(self._absolute(url), method=method), follow, headers)

    def post(self, url: str, values: dict[str, Any], *, follow: bool = True, **headers: str) -> VisitedPage:
        body = urllib.parse.urlencode(values, doseq=True).encode()
        return self._request(urllib.request.Request(self._absolute(url), data=body, method="POST"), follow, headers)

    def submit(self, form: WebForm, *, file: tuple[str, str, bytes] | None = None, **answers: Any) -> VisitedPage:
        """Submit a form with its initial values, overridden by ``answers``; labels of choices are mapped to values."""
        values: dict[str, list[str]] = {name: list(kept) for name, kept in form.values.items()}
        for name, answer in answers.items():
            if answer is None:
                values.pop(name, None)
                continue
            assert name in form.values or name in form.options, f"{name} is not asked: {sorted(form.values)}"
            given = [str(one) for one in (answer if isinstance(answer, list) else [answer])]
            values[name] = [form.options.get(name, {}).get(one, one) for one in given]
        if not (file or form.multipart):
            return self.post(form.action, values, Referer=form.action)
        return self._multipart(form.action, values, file)

    def _multipart(self, url: str, values: dict[str, list[str]], file: tuple[str, str, bytes] | None) -> VisitedPage:
        boundary = secrets.token_hex(16)
        parts = [
            f'--{boundary}\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n{value}\r\n'.encode()
            for name, kept in values.items()
            for value in kept
        ]
        if file:
            name, filename, content = file
            disposition = f'form-data; name="{name}"; filename="{filename}"'
            head = f"--{boundary}\r\nContent-Disposition: {disposition}\r\nContent-Type: text/csv\r\n\r\n"
            parts.append(head.encode() + content + b"\r\n")
        body = b"".join(parts) + f"--{boundary}--\r\n".encode()
        request = urllib.request.Request(url, data=body, method="POST")
        request.add_header("Content-Type", f"multipart/form-data; boundary={boundary}")
        return self._request(request, True, {"Referer": url})

    def _absolute(self, url: str) -> str:
        return url if url.startswith("http") else self.base + url

    def _request(self, request: urllib.request.Request, follow: bool, headers: dict[str, str]) -> VisitedPage:
        for name, value in (self.headers | headers).items():
            request.add_header(name.replace("_", "-"), value)
        try:
            response = (self._opener if follow else self._no_redirect_opener).open(request, timeout=30)
        except urllib.error.HTTPError as error:
            response = error
        with response:
            body = response.read()
        return VisitedPage(response.url, response.status, body.decode("utf-8", "replace"), response.headers)


def eventually(condition: Callable[[], Any], seconds: float = 120) -> Any:
    """Return the first truthy result of ``condition``; an AssertionError it raises is tolerated until the timeout."""
    deadline = time.monotonic() + seconds
    while True:
        try:
            if result := condition():
                return result
            last = "nothing"
        except AssertionError as error:
            last = str(error)
        assert time.monotonic() < deadline, f"waited {seconds} s in vain: {last}"
        time.sleep(0.2)
