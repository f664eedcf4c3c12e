"""Tests of the page script in a real browser, on a small third-party website."""

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest
from playwright.sync_api import Browser, Page, Route

from tracking.endpoints import page_script

pytestmark = pytest.mark.browser

SITE = "https://shop.example"
HTML = """<!doctype html><html lang="en"><title>Tea</title><script async src="https://go.example/k.js"></script>
<body style="height: 4000px"><a id="away" href="https://elsewhere.example/" target="_blank">Away</a>"""


@dataclass
class Site:
    page: Page
    reports: list[dict[str, Any]] = field(default_factory=list)
    is_up: bool = True
    errors: list[str] = field(default_factory=list)

    def serve(self, route: Route) -> None:
        url = route.request.url
        if url.endswith("/k.js") and self.is_up:
            route.fulfill(body=page_script.SCRIPT.read_text(), content_type="text/javascript")
        elif url.endswith("/e") and self.is_up:
            self.reports.append(json.loads(route.request.post_data or "{}"))
            route.fulfill(status=204)
        elif url.startswith(SITE):
            route.fulfill(body=HTML, content_type="text/html")
        else:
            route.abort()

    def wait_for_reports(self, report_type: str, count: int = 1) -> Any:
        return self.wait(
            lambda: found if len(found := [r for r in self.reports if r["t"] == report_type]) >= count else None
        )

    def wait(self, condition: Callable[[], Any]) -> Any:
        """Return the first truthy result of ``condition``; the browser's requests are served while waiting."""
        for _ in range(200):
            if result := condition():
                return result
            self.page.wait_for_timeout(50)
        raise AssertionError(f"condition not met; reports so far: {self.reports}")


@pytest.fixture
def site(chromium: Browser) -> Iterator[Site]:
    context = chromium.new_context()
    page = context.new_page()
    site = Site(page)
    page.on("pageerror", lambda error: site.errors.append(str(error)))
    context.route("**/*", site.serve)
    yield site
    assert site.errors == []
    context.close()


def test_reports_and_storage(site: Site) -> None:
    page = site.page
    page.goto(f"{SITE}/tea?utm_source=facebook&k=token&size=2#top", referer="https://www.facebook.com/")
    (first,) = site.wait_for_reports("v")
    assert first["u"] == f"{SITE}/tea?utm_source=facebook&size=2"
    assert (first["r"], first["k"], first["z"] != "") == ("https://www.facebook.com/", "token", True)
    assert page.url == f"{SITE}/tea?utm_source=facebook&size=2#top", "the token is taken out of the address"

    page.evaluate("history.pushState({}, '', '/cups')")  # next page of a single-page site
    second = site.wait_for_reports("v", 2)[1]
    assert (second["u"], second["r"]) == (f"{SITE}/cups", first["u"])
    assert second["p"] != first["p"]

    page.evaluate("kampania('event', 'purchase', {value: 49.9, currency: 'EUR', id: 'A-1'})")
    (bought,) = site.wait_for_reports("e")
    assert (bought["n"], bought["v"], bought["c"], bought["e"], bought["p"]) == (
        "purchase",
        49.9,
        "EUR",
        "A-1",
        second["p"],
    )
    page.evaluate("document.querySelector('#away').click()")
    assert site.wait_for_reports("o")[0]["h"] == "https://elsewhere.example/"
    assert page.context.cookies() == []
    assert page.evaluate("localStorage.length + sessionStorage.length") == 0

    page.evaluate("kampania('consent', true)")
    allowed = site.wait(lambda: next((r["i"] for r in site.reports if r.get("i")), None))
    page.reload()
    assert site.wait_for_reports("v", 3)[2]["i"] == allowed
    page.evaluate("kampania('consent', false)")
    page.reload()
    assert "i" not in site.wait_for_reports("v", 4)[3]


def test_active_time_and_scroll_depth(site: Site) -> None:
    page = site.page
    page.goto(f"{SITE}/tea")
    site.wait_for_reports("v")
    page.mouse.move(10, 10)
    page.mouse.wheel(0, 10_000)
    page.wait_for_timeout(2_500)
    # Playwright cannot see beacons that are sent while the page unloads; hiding the page sends the same report.
    page.evaluate("Object.defineProperty(document, 'visibilityState', {value: 'hidden'})")
    page.evaluate("document.dispatchEvent(new Event('visibilitychange'))")
    left = site.wait_for_reports("h")[0]
    assert (left["u"], left["s"]) == (f"{SITE}/tea", 100)
    assert 1 <= left["a"] <= 3


def test_do_not_track_stores_no_id(site: Site) -> None:
    page = site.page
    page.add_init_script("Object.defineProperty(Navigator.prototype, 'globalPrivacyControl', {value: true})")
    page.goto(f"{SITE}/tea?k=token")
    (first,) = site.wait_for_reports("v")
    assert (first["d"], "k" in first, "i" in first) == (1, False, False)
    page.evaluate("kampania('consent', true)")
    assert page.evaluate("localStorage.length") == 0


def test_a_blocked_script_or_endpoint_breaks_nothing(site: Site) -> None:
    page = site.page
    page.goto(f"{SITE}/tea")
    site.wait_for_reports("v")
    site.is_up = False
    page.evaluate("history.pushState({}, '', '/cups'); kampania('event', 'x')")
    page.evaluate("kampania(); kampania('event'); kampania('event', 'x', null); kampania('consent', {})")
    page.goto(f"{SITE}/cups")
    assert page.title() == "Tea"
    assert page.evaluate("typeof kampania") == "undefined"
